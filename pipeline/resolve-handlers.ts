import { stringifyJson } from '../sensu/json.js'
import type { Logger } from '../sensu/log.js'
import type { Json, JsonObject } from '../sensu/types.js'

/** A handler's definition with its name as the last attribute, as it appears in log lines. */
export type NamedHandler = JsonObject & { name: string }

/** Names of the handlers a check asks for: `handlers`, else `handler`, else "default". */
export function handlerNames(check: JsonObject): Json[] {
  if (Array.isArray(check['handlers'])) return check['handlers']
  return [check['handler'] ?? 'default']
}

/**
 * The definitions behind handler names, sets expanded (a set inside a set, no deeper), each definition once. Unknown names and sets nested too
 * deeply are logged and left out. `builtIn`: names of handlers that exist without configuration.
 */
export function resolveHandlers(
  names: Json[],
  handlers: { [name: string]: JsonObject | undefined },
  builtIn: readonly string[],
  logger: Logger,
): NamedHandler[] {
  const unique = new Map<string, NamedHandler>()
  for (const handler of expand(names, handlers, builtIn, logger, 0)) unique.set(stringifyJson(handler), handler)
  return [...unique.values()]
}

function expand(
  names: Json[],
  handlers: { [name: string]: JsonObject | undefined },
  builtIn: readonly string[],
  logger: Logger,
  depth: number,
): NamedHandler[] {
  return names.flatMap(name => {
    if (name === null) return []
    const known = typeof name === 'string' ? name : ''
    const definition = Object.hasOwn(handlers, known) ? handlers[known] : undefined
    if (definition === undefined) {
      if (builtIn.includes(known)) return [{ type: 'extension', name: known }]
      logger.error('unknown handler', { handler_name: name })
      return []
    }
    const handler: NamedHandler = { ...definition, name: known }
    if (definition['type'] !== 'set') return [handler]
    const members = Array.isArray(definition['handlers']) ? definition['handlers'] : []
    if (depth < 2) return expand(members, handlers, builtIn, logger, depth + 1)
    logger.error('handler sets cannot be deeply nested', { handler })
    return []
  })
}
