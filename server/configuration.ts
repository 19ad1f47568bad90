import { expressionFaults } from '../pipeline/attributes-match.js'
import { validatePipelineSettings } from '../pipeline/pipeline.js'
import type { ServiceOptions } from '../sensu/command-line.js'
import { isObject } from '../sensu/json-value.js'
import { type Environment, type LoadedSettings, loadSettings } from '../sensu/settings.js'
import type { ConfigurationError, Service, Settings } from '../sensu/types.js'
import { validateApi } from '../sensu/validate.js'
import { corsFaults } from './api/cors.js'
import { readServerSettings, type ServerSettings } from './settings.js'

/** Everything the configuration says, Sensu's part and ours. It can be used when there are no errors. */
export interface Configuration extends LoadedSettings {
  own: ServerSettings
}

/** The program's switches: by default one process is server and API. */
export const API_ONLY = 'api-only'
export const NO_API = 'no-api'

/** Which of Sensu's two programs this is; both at once counts as the server. */
export function serviceOf({ switches = [] }: ServiceOptions): Service {
  return switches.includes(API_ONLY) ? 'api' : 'server'
}

/** Loads and validates the configuration; all broken rules are told at once, what cannot be loaded alone. */
export function loadConfiguration(options: ServiceOptions, environment: Environment): Configuration {
  const { configFile, configDirectories, switches = [] } = options
  const service = serviceOf(options)
  const loaded = loadSettings({ service, configFile, configDirectories, environment })
  const { values: own, errors } = readServerSettings(loaded.settings)
  if (loaded.errors.some(error => error.object === undefined)) return { ...loaded, own }
  if (service === 'server' && !switches.includes(NO_API)) errors.push(...validateApi(loaded.settings))
  const { api } = loaded.settings
  if (!switches.includes(NO_API) && isObject(api)) errors.push(...corsFaults(api))
  // what the pipeline adds presumes definitions that are valid
  if (loaded.errors.length === 0) {
    errors.push(...validatePipelineSettings(loaded.settings), ...proxyRequestFaults(loaded.settings))
  }
  return { ...loaded, own, errors: [...loaded.errors, ...errors] }
}

/** Expressions by which checks choose their clients, as far as they are not understood. */
function proxyRequestFaults({ checks }: Settings): ConfigurationError[] {
  return Object.entries(checks).flatMap(([name, check]) => {
    const wanted = isObject(check.proxy_requests) ? check.proxy_requests['client_attributes'] : undefined
    if (!isObject(wanted)) return []
    return expressionFaults(wanted).map(({ path, fault }) => ({
      object: { ...check, name },
      message: `check ${name}: the expression of attribute proxy_requests client_attributes ${path} is not supported: ${fault}`,
    }))
  })
}
