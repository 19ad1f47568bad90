import { isDeepStrictEqual } from 'node:util'
import { SECTION } from '../sensu/own-settings.js'
import type { JsonObject, Settings } from '../sensu/types.js'
import { type AgentSettings, agentSettings } from './settings.js'

/** Settings that a running agent can go on with. */
export interface Reloaded {
  settings: Settings
  own: AgentSettings
  /** What has changed in the files and stays as it was until the agent is restarted. */
  needRestart: string[]
}

type Loaded = Pick<Reloaded, 'settings' | 'own'>

/** The one of our own settings that takes effect in a running agent. */
const LIVE = 'libvirt.events'

/**
 * What of newly loaded settings a running agent takes over: everything but its name, the way to the broker, where results
 * go, and limits that its parts were made with. Those keep their values, and are named.
 */
export function reloadable(old: Loaded, loaded: Loaded): Reloaded {
  const settings: Settings = { ...loaded.settings }
  const needRestart: string[] = []
  const { name } = old.settings.client
  if (settings.client.name !== name) {
    needRestart.push('client name')
    const renamed = `client:${settings.client.name}`
    const subscriptions = settings.client.subscriptions.map(entry => (entry === renamed ? `client:${name}` : entry))
    settings.client = { ...settings.client, name, subscriptions }
  }
  if (!isDeepStrictEqual(settings.sensu.spawn, old.settings.sensu.spawn)) {
    needRestart.push('sensu spawn')
    settings.sensu = { ...settings.sensu, spawn: old.settings.sensu.spawn }
  }
  for (const key of ['transport', ...connections(old)]) {
    if (isDeepStrictEqual(settings[key], old.settings[key])) continue
    needRestart.push(key)
    keep(settings, old.settings, key)
  }
  const own = { ...old.own }
  for (const { key } of agentSettings) {
    if (isDeepStrictEqual(own[key], loaded.own[key])) continue
    if (key === LIVE) own[key] = loaded.own[key]
    else needRestart.push(`${SECTION} ${key.replaceAll('.', ' ')}`)
  }
  return { settings, own, needRestart }
}

/** Sections that open connections were made from. */
function connections({ settings, own }: Loaded): string[] {
  const used = new Set([settings.transport.name, ...(own['results.to'] === 'redis' ? ['redis'] : [])])
  return [...used]
}

function keep(settings: JsonObject, old: JsonObject, key: string): void {
  const value = old[key]
  if (value === undefined) delete settings[key]
  else settings[key] = value
}
