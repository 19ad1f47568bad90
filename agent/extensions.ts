import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { isObject, isSet } from '../sensu/json-value.js'
import type { Logger } from '../sensu/log.js'
import type { JsonObject, Settings } from '../sensu/types.js'

/**
 * Says which extensions are configured and not used: Sensu's are Ruby, which this agent cannot run. A missing
 * extension never stops the client; requests for it are answered by a line in the log.
 */
export function logExtensions(directory: string | undefined, settings: Settings, log: Logger): void {
  if (directory !== undefined) logFiles(directory, log)
  for (const [name, definition] of Object.entries(settings.extensions)) logGem(name, definition, log)
}

function logFiles(directory: string, log: Logger): void {
  log.warn('loading extension files from directory', { directory })
  for (const name of filesIn(directory).filter(file => file.endsWith('.rb'))) {
    const file = join(directory, name)
    log.warn('loading extension file', { file })
    log.warn('failed to require extension', { file, error: 'Ruby extensions cannot be loaded' })
    log.warn('ignoring extension', { file })
  }
}

function logGem(name: string, definition: JsonObject, log: Logger): void {
  if (!isObject(definition)) return
  const own = definition['gem']
  const gem = isSet(own) ? own : `sensu-extensions-${name}`
  const version = definition['version'] ?? null
  log.warn('loading extension gem', { gem, version })
  const library = isSet(own) ? own : `sensu/extensions/${name}`
  log.warn('requiring extension gem', { require: library })
  log.warn('failed to require extension', { gem, version, error: `cannot load such file -- ${String(library)}` })
  log.warn('ignoring extension', { gem })
}

function filesIn(directory: string): string[] {
  try {
    return readdirSync(directory).sort()
  } catch {
    return []
  }
}
