import { isDeepStrictEqual } from 'node:util'
import type { Settings } from '../sensu/types.js'
import type { Configuration } from './configuration.js'

/** Sections that open connections, limits and sockets were made from. */
const lastingSections = ['transport', 'rabbitmq', 'redis', 'api', 'extensions']
const lastingSensu = ['spawn', 'server', 'global_error_handler']

/**
 * What of newly loaded settings a running server takes over: definitions and `sensu.keepalives`. The rest keeps its values, and what of it
 * has changed is named.
 */
export function reloadable(old: Configuration, loaded: Configuration): { settings: Settings; needRestart: string[] } {
  const settings: Settings = { ...loaded.settings, sensu: { ...loaded.settings.sensu } }
  const needRestart: string[] = []
  const keep = (section: Settings | Settings['sensu'], before: typeof section, key: string, name: string) => {
    if (isDeepStrictEqual(section[key], before[key])) return
    needRestart.push(name)
    if (before[key] === undefined) delete section[key]
    else section[key] = before[key]
  }
  for (const key of lastingSections) keep(settings, old.settings, key, key)
  for (const key of lastingSensu) keep(settings.sensu, old.settings.sensu, key, `sensu ${key}`)
  if (!isDeepStrictEqual(old.own, loaded.own)) needRestart.push('sensu_kvm server')
  return { settings, needRestart }
}
