import { filterFaults } from '../pipeline/filter.js'
import type { ServiceOptions } from '../sensu/command-line.js'
import { type Environment, type LoadedSettings, loadSettings } from '../sensu/settings.js'
import { type AgentSettings, readAgentSettings } from './settings.js'

/** Everything the configuration says, Sensu's part and ours. It can be used when there are no errors. */
export interface Configuration extends LoadedSettings {
  own: AgentSettings
}

/** Loads and validates the configuration; all broken rules are told at once, what cannot be loaded alone. */
export function loadConfiguration(options: ServiceOptions, environment: Environment): Configuration {
  const { configFile, configDirectories } = options
  const loaded = loadSettings({ service: 'client', configFile, configDirectories, environment })
  const { values: own, errors } = readAgentSettings(loaded.settings)
  const unloaded = loaded.errors.some(error => error.object === undefined)
  if (unloaded) return { ...loaded, own }
  const usable = loaded.errors.length === 0 && errors.length === 0
  const pipeline = usable && own['results.to'] === 'redis' ? filterFaults(loaded.settings.filters) : []
  return { ...loaded, own, errors: [...loaded.errors, ...errors, ...pipeline] }
}
