import { readFileSync } from 'node:fs'
import type { RedisOptions } from 'ioredis'
import { isObject } from '../sensu/json-value.js'
import type { Json, JsonObject } from '../sensu/types.js'

const sentinelPort = 26379
/** Attempts to reconnect are this far apart (Sensu 1.9). */
const reconnectDelayMs = 1000
const connectTimeoutMs = 10_000

/**
 * Turns Sensu's `redis` settings into ioredis options: nothing (127.0.0.1:6379), a URL (`redis://:password@host:port/db`, `rediss://`), or
 * an object with host, port, password, db, tls (or ssl), sentinels (array of {host, port} or comma-separated URLs), master or master_group,
 * auto_reconnect. Throws an Error that names the setting when a value has the wrong form.
 *
 * With `tls` the server's certificate is verified unless `verify_peer` is false; `ca_file`, `cert_chain_file` and `private_key_file` name files.
 */
export function redisOptions(settings: Json | undefined): RedisOptions {
  if (settings === undefined || settings === null) return baseOptions({})
  if (typeof settings === 'string') return { ...baseOptions({}), ...urlOptions(settings, 'redis') }
  if (!isObject(settings)) {
    throw new Error('redis must be an object or a URL such as redis://127.0.0.1:6379/0')
  }
  const options = baseOptions(settings)
  const password = text(settings, 'password')
  const username = text(settings, 'username')
  if (password !== undefined) options.password = password
  if (username !== undefined) options.username = username
  const tls = settings['tls'] ?? settings['ssl']
  if (tls !== undefined && tls !== null && tls !== false) options.tls = tlsOptions(tls)
  const sentinels = sentinelAddresses(settings['sentinels'])
  if (sentinels.length > 0) {
    options.sentinels = sentinels
    options.name = text(settings, 'master') ?? text(settings, 'master_group') ?? 'mymaster'
    options.sentinelRetryStrategy = () => reconnectDelayMs
  }
  return options
}

function baseOptions(settings: JsonObject): RedisOptions {
  const reconnect = settings['auto_reconnect'] !== false
  return {
    host: text(settings, 'host') ?? '127.0.0.1',
    port: integer(settings, 'port') ?? 6379,
    db: integer(settings, 'db') ?? 0,
    connectTimeout: connectTimeoutMs,
    retryStrategy: () => (reconnect ? reconnectDelayMs : null),
  }
}

function urlOptions(url: string, setting: string): RedisOptions {
  let parsed: URL
  try {
    parsed = new URL(url)
  } catch {
    throw new Error(`${setting} is not a URL; expected redis://[:password@]host[:port][/db]`)
  }
  if (parsed.protocol !== 'redis:' && parsed.protocol !== 'rediss:') {
    throw new Error(`${setting} has the scheme ${parsed.protocol}; expected redis: or rediss:`)
  }
  const db = parsed.pathname.slice(1)
  if (!/^\d*$/.test(db)) throw new Error(`${setting} names the database ${db}; expected a number`)
  const options: RedisOptions = {
    host: parsed.hostname || '127.0.0.1',
    port: Number(parsed.port || 6379),
    db: Number(db || 0),
  }
  if (parsed.password !== '') options.password = decodeURIComponent(parsed.password)
  if (parsed.username !== '') options.username = decodeURIComponent(parsed.username)
  if (parsed.protocol === 'rediss:') options.tls = {}
  return options
}

function sentinelAddresses(sentinels: Json | undefined): { host: string; port: number }[] {
  if (sentinels === undefined || sentinels === null) return []
  if (typeof sentinels === 'string') {
    return sentinels.split(',').map(url => {
      const { host = '127.0.0.1' } = urlOptions(url.trim(), 'redis sentinels')
      return { host, port: Number(new URL(url.trim()).port || sentinelPort) }
    })
  }
  if (!Array.isArray(sentinels))
    throw new Error('redis sentinels must be an array of {"host", "port"} or comma-separated URLs')
  return sentinels.map(sentinel => {
    if (typeof sentinel === 'string') return sentinelAddresses(sentinel)[0] ?? { host: '127.0.0.1', port: sentinelPort }
    if (!isObject(sentinel)) {
      throw new Error('redis sentinels must be an array of {"host", "port"} or comma-separated URLs')
    }
    return { host: text(sentinel, 'host') ?? '127.0.0.1', port: integer(sentinel, 'port') ?? sentinelPort }
  })
}

function tlsOptions(tls: Json): NonNullable<RedisOptions['tls']> {
  if (!isObject(tls)) return {}
  const options: NonNullable<RedisOptions['tls']> = { rejectUnauthorized: tls['verify_peer'] !== false }
  const file = (key: string) => {
    const path = text(tls, key)
    return path === undefined ? undefined : readFileSync(path)
  }
  const [ca, cert, key] = [file('ca_file'), file('cert_chain_file'), file('private_key_file')]
  if (ca !== undefined) options.ca = ca
  if (cert !== undefined) options.cert = cert
  if (key !== undefined) options.key = key
  return options
}

function text(settings: JsonObject, key: string): string | undefined {
  const value = settings[key]
  if (value === undefined || value === null) return undefined
  if (typeof value === 'string') return value
  throw new Error(`redis ${key} must be a string`)
}

function integer(settings: JsonObject, key: string): number | undefined {
  const value = settings[key]
  if (value === undefined || value === null) return undefined
  const number = typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value
  if (typeof number === 'number' && Number.isInteger(number) && number >= 0) return number
  throw new Error(`redis ${key} must be a whole number`)
}
