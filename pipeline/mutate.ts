import { isObject } from '../sensu/json-value.js'
import type { Logger } from '../sensu/log.js'
import type { Spawner } from '../sensu/spawn.js'
import type { JsonObject } from '../sensu/types.js'
import type { NamedHandler } from './resolve-handlers.js'

/** An event on its way to a handler: read from its text, which is the one Redis holds. */
export interface EventInHand {
  event: JsonObject
  text: string
}

/**
 * What the handler gets: the event's JSON, or what its mutator makes of it. Undefined, and logged, when the mutator is unknown or failed; the
 * handler is not called then.
 */
export async function mutate(
  handler: NamedHandler,
  { event, text }: EventInHand,
  mutators: { [name: string]: JsonObject | undefined },
  spawner: Spawner,
  logger: Logger,
): Promise<Buffer | undefined> {
  const name = handler['mutator'] ?? 'json'
  const known = typeof name === 'string' ? name : ''
  const mutator = Object.hasOwn(mutators, known) ? mutators[known] : undefined
  if (mutator !== undefined) return runMutator({ ...mutator, name: known }, { event, text }, spawner, logger)
  if (known === 'json') return Buffer.from(text)
  if (known === 'only_check_output') return checkOutput(event)
  if (known === 'ruby_hash' && handler['type'] === 'pipe') refuseRubyHash(handler, event, logger)
  else logger.error('unknown mutator', { mutator_name: name })
  return undefined
}

async function runMutator(
  mutator: JsonObject,
  { event, text }: EventInHand,
  spawner: Spawner,
  logger: Logger,
): Promise<Buffer | undefined> {
  const { command, timeout } = mutator
  const { output, status } = await spawner.run({ command, stdin: text, timeoutSeconds: timeout })
  if (status === 0) return output
  logger.error('mutator error', { mutator, event, output: output.toString(), status })
  return undefined
}

/** Sensu's mutator `ruby_hash` is for its extensions; what handlers of type pipe make of it is this. */
function refuseRubyHash(handler: NamedHandler, event: JsonObject, logger: Logger): void {
  const output = 'Unexpected error: the mutator ruby_hash makes nothing that a command could read'
  logger.error('handler output', { handler, event: { id: event['id'] ?? null }, output: [output] })
}

function checkOutput(event: JsonObject): Buffer {
  const output = isObject(event['check']) ? event['check']['output'] : undefined
  if (Buffer.isBuffer(output)) return output
  return Buffer.from(typeof output === 'string' ? output : '')
}
