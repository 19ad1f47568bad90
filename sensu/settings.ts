import { existsSync, renameSync, writeFileSync } from 'node:fs'
import { hostname, networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { findFiles, isReadableDirectory, isReadableFile, LoadError, readConfigFile } from './config-files.js'
import { deepDiff, deepMerge, uniqueItems } from './deep-merge.js'
import { defaultConfigDirectory, defaultConfigFile, defaultKeepaliveThresholds, defaultSpawnLimit } from './defaults.js'
import { prettyJson } from './json.js'
import { fromEntries, isObject, member } from './json-value.js'
import { redact, redactUrl } from './redact.js'
import { plainText } from './text-forms.js'
import type { ConfigurationError, Json, JsonObject, LogEntry, Service, Settings } from './types.js'
import { validateSettings } from './validate.js'

export type Environment = Readonly<Record<string, string | undefined>>

export type SettingsSources = {
  service: Service
  /** main file; without one `/etc/sensu/config.json`, if it exists */
  configFile?: string | undefined
  /** directories with `*.json` files; without any `/etc/sensu/conf.d`, if it exists */
  configDirectories?: readonly string[] | undefined
  environment: Environment
  /** this machine's name, default from the system */
  hostName?: string
  /** this machine's address, default its first IPv4 address that is not the loopback */
  address?: string
}

export type LoadedSettings = {
  /** what was loaded, also when there are errors */
  settings: Settings
  /** for the log, in order */
  notices: LogEntry[]
  /** empty when the settings can be used */
  errors: ConfigurationError[]
  loadedFiles: string[]
}

const maxFiles = 10_000

/**
 * Loads a service's settings as Sensu 1.9 does: defaults, environment, the main file, the directories in order, then (for
 * the client) its own subscription, then validation. Later sources are merged over earlier ones. The first thing that
 * cannot be loaded ends it all and is the only error.
 */
export function loadSettings(sources: SettingsSources): LoadedSettings {
  const loader = new Loader(sources)
  const errors: ConfigurationError[] = []
  try {
    loader.load()
    errors.push(...validateSettings(loader.settings, sources.service))
  } catch (error) {
    if (!(error instanceof LoadError)) throw error
    errors.push({ message: error.message, ...error.where })
  }
  // The types of Settings hold because validation has found no error, or the caller does not go on.
  return { settings: loader.settings as Settings, notices: loader.notices, errors, loadedFiles: loader.loadedFiles }
}

/** What `--validate_config` prints, and the exit status: 0 valid, 2 invalid. */
export function reportValidity(errors: readonly ConfigurationError[]): { text: string; status: number } {
  if (errors.length === 0) return { text: 'configuration is valid\n', status: 0 }
  return { text: `configuration is invalid\n${prettyJson({ errors: [...errors] })}\n`, status: 2 }
}

/** What `--print_config` prints: all settings without secrets. */
export function printSettings(settings: JsonObject): string {
  return `${prettyJson(redact(settings))}\n`
}

/**
 * Writes the list of loaded files to `sensu_<service>_loaded_files` in the directory for temporary files and returns its
 * path, which commands find in `SENSU_LOADED_TEMPFILE`. Throws when the file cannot be written.
 */
export function writeLoadedFiles(service: Service, loadedFiles: readonly string[], environment: Environment): string {
  const directory = environment['SENSU_LOADED_TEMPFILE_DIR'] ?? environment['TMPDIR'] ?? tmpdir()
  const path = join(directory, `sensu_${service}_loaded_files`)
  // Anybody may have put a link of that name there: it is replaced, not followed. (node:crypto would cost 2 MiB of memory.)
  const temporary = `${path}.${Math.random().toString(36).slice(2)}`
  writeFileSync(temporary, loadedFiles.join(':'), { flag: 'wx' })
  renameSync(temporary, path)
  return path
}

/** The first IPv4 address of this machine that is not the loopback, `unknown` without one. */
export function findAddress(): string {
  const addresses = Object.values(networkInterfaces()).flatMap(found => found ?? [])
  return addresses.find(({ family, internal }) => family === 'IPv4' && !internal)?.address ?? 'unknown'
}

class Loader {
  readonly #sources: SettingsSources
  readonly notices: LogEntry[] = []
  readonly loadedFiles: string[] = []
  settings: JsonObject

  constructor(sources: SettingsSources) {
    this.#sources = sources
    this.settings = defaultSettings(sources)
  }

  load(): void {
    const { configFile, configDirectories, service } = this.#sources
    this.#loadEnvironment()
    const file = configFile ?? (existsSync(defaultConfigFile) ? defaultConfigFile : undefined)
    if (file !== undefined) this.#loadMainFile(file)
    const fallback = existsSync(defaultConfigDirectory) ? [defaultConfigDirectory] : []
    for (const directory of configDirectories ?? fallback) this.#loadDirectory(directory)
    if (service === 'client') this.#addOwnSubscription()
  }

  #notice(message: string, data: JsonObject): void {
    this.notices.push({ level: 'warn', message, data })
  }

  #loadEnvironment(): void {
    for (const source of environmentSources) {
      const found = source.read(this.#sources.environment)
      if (found === undefined) continue
      this.settings = deepMerge(this.settings, found)
      this.#notice(source.notice, source.data(this.settings))
    }
  }

  #loadMainFile(file: string): void {
    if (isReadableFile(file)) {
      this.#loadFile(file)
    } else {
      this.#notice('config file does not exist or is not readable', { file })
      this.#notice('ignoring config file', { file })
    }
  }

  #loadDirectory(given: string): void {
    const directory = given.replace(/\\(?=\S)/g, '/')
    this.#notice('loading config files from directory', { directory: given })
    if (!isReadableDirectory(directory)) throw new LoadError('insufficient permissions for loading', { directory })
    for (const file of findFiles(directory)) {
      if (this.loadedFiles.length >= maxFiles) {
        throw new LoadError(`more than ${maxFiles} config files`, { directory })
      }
      this.#loadFile(file)
    }
  }

  #loadFile(file: string): void {
    if (!isReadableFile(file)) throw new LoadError('config file does not exist or is not readable', { file })
    this.#notice('loading config file', { file })
    const merged = deepMerge(this.settings, readConfigFile(file))
    if (this.loadedFiles.length > 0) {
      this.#notice('config file applied changes', { file, changes: redact(deepDiff(this.settings, merged)) })
    }
    this.settings = merged
    this.loadedFiles.push(file)
  }

  #addOwnSubscription(): void {
    const client = member(this.settings, 'client')
    // Validation reports a client that is no hash.
    if (!isObject(client)) return
    const subscriptions = member(client, 'subscriptions') ?? []
    if (!Array.isArray(subscriptions)) {
      const reason = 'client subscriptions is not an array'
      this.#notice('unable to apply sensu client overrides', { reason, client: redact(client) })
      return
    }
    const own = `client:${plainText(member(client, 'name'))}`
    const applied = { ...client, subscriptions: uniqueItems([...subscriptions, own]) }
    this.settings = { ...this.settings, client: applied }
    this.#notice('applied sensu client overrides', { client: redact(applied) })
  }
}

function defaultSettings({ service, hostName, address }: SettingsSources): JsonObject {
  const client = { name: hostName ?? (hostname() || 'unknown'), address: address ?? findAddress() }
  return {
    client: service === 'client' ? client : {},
    sensu: {
      spawn: { limit: defaultSpawnLimit },
      keepalives: { thresholds: { ...defaultKeepaliveThresholds } },
    },
    transport: { name: 'rabbitmq', reconnect_on_error: true },
    checks: {},
    filters: {},
    mutators: {},
    handlers: {},
    extensions: {},
  }
}

/** One setting that comes from the environment: what it changes, and what the log says about it. */
type EnvironmentSource = {
  notice: string
  /** the settings to merge, undefined when the variable is not set */
  read(environment: Environment): JsonObject | undefined
  /** data of the notice, from the settings after merging */
  data(settings: JsonObject): JsonObject
}

const environmentSources: readonly EnvironmentSource[] = [
  {
    notice: 'using sensu transport name environment variable',
    read: ({ SENSU_TRANSPORT_NAME: name }) => (name === undefined ? undefined : { transport: { name } }),
    data: ({ transport }) => ({ transport }),
  },
  {
    notice: 'using rabbitmq url environment variable',
    read: ({ RABBITMQ_URL: url }) => (url === undefined ? undefined : { rabbitmq: url }),
    data: ({ rabbitmq }) => ({ rabbitmq: redactUrl(plainText(rabbitmq)) }),
  },
  {
    notice: 'using redis sentinel url environment variable',
    read: ({ REDIS_SENTINEL_URLS: sentinels }) => (sentinels === undefined ? undefined : { redis: { sentinels } }),
    data: ({ redis }) => ({ sentinels: redactUrl(plainText(isObject(redis) ? redis['sentinels'] : null)) }),
  },
  {
    notice: 'using redis url environment variable',
    read: ({ REDIS_URL: url, REDIS_SENTINEL_URLS: sentinels }) =>
      url === undefined || sentinels !== undefined ? undefined : { redis: url },
    data: ({ redis }) => ({ redis: redactUrl(plainText(redis)) }),
  },
  {
    notice: 'using sensu client environment variables',
    read: clientFromEnvironment,
    data: ({ client }) => ({ client }),
  },
  {
    notice: 'using api port environment variable',
    // Leading digits count, anything else is 0.
    read: ({ SENSU_API_PORT: port }) =>
      port === undefined ? undefined : { api: { port: Number.parseInt(port, 10) || 0 } },
    data: ({ api }) => ({ api }),
  },
]

/** Something as soon as any variable starts with `SENSU_CLIENT`, even an unknown one. */
function clientFromEnvironment(environment: Environment): JsonObject | undefined {
  const names = Object.keys(environment).filter(name => environment[name] !== undefined)
  if (!names.some(name => name.startsWith('SENSU_CLIENT'))) return undefined
  // As in Ruby nothing follows a comma at the end.
  const subscriptions = environment['SENSU_CLIENT_SUBSCRIPTIONS']?.replace(/,+$/, '')
  const attributes: [string, Json | undefined][] = [
    ['name', environment['SENSU_CLIENT_NAME']],
    ['address', environment['SENSU_CLIENT_ADDRESS']],
    ['subscriptions', subscriptions === '' ? [] : subscriptions && uniqueItems(subscriptions.split(','))],
  ]
  return { client: fromEntries(attributes.filter(([, value]) => value !== undefined)) }
}
