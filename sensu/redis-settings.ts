import type { ConnectionOptions } from 'node:tls'
import { isObject } from './json-value.js'
import { readTlsSettings } from './tls-settings.js'
import type { Json, JsonObject } from './types.js'

/**
 * How to reach Redis. The members are named as ioredis names its options, so that a connection takes them as they are;
 * nothing else here knows that library.
 */
export interface RedisAddress {
  host: string
  port: number
  db: number
  username?: string
  password?: string
  /** Of the connection to Redis itself, also when sentinels name it. */
  tls?: ConnectionOptions
  /** When there are any, they name the master of the group `name`, and host and port are not used. */
  sentinels?: SentinelAddress[]
  name?: string
  sentinelUsername?: string
  sentinelPassword?: string
  sentinelTLS?: ConnectionOptions
  /** Always true with `tls`: without it ioredis speaks in clear to a Redis that sentinels named. */
  enableTLSForSentinelMode?: boolean
}

export interface SentinelAddress {
  host: string
  port: number
}

/** Sensu's `redis` settings, understood. */
export interface RedisSettings {
  address: RedisAddress
  /** False: a lost connection is not built anew by itself (Sensu's `auto_reconnect`). */
  autoReconnect: boolean
}

const redisPort = 6379
const sentinelPort = 26379
const sentinelForms = 'redis sentinels must be an array of {"host", "port"} or comma-separated URLs'

/**
 * Reads Sensu's `redis` settings: nothing (127.0.0.1:6379), a URL (`redis://[user][:password]@host:port/db`, `rediss://` for TLS), or a hash
 * with host, port, db, username, password, tls (or ssl), sentinels, master or master_group, auto_reconnect. `sentinels` is an array of
 * {host, port}, or URLs in an array or separated by commas; user and password in such a URL are the sentinels' own, one pair for all of them.
 * Throws an Error that names the setting, and never its value, when one has the wrong form.
 *
 * `tls` is read by readTlsSettings. With `rediss://`, which Sensu does not know, the server is always verified.
 */
export function readRedisSettings(settings: Json | undefined): RedisSettings {
  if (settings === undefined || settings === null) return readRedisSettings({})
  if (typeof settings === 'string') return { address: urlAddress(settings, 'redis', redisPort), autoReconnect: true }
  if (!isObject(settings)) throw new Error('redis must be an object or a URL such as redis://127.0.0.1:6379/0')
  const address: RedisAddress = {
    host: text(settings, 'host') ?? '127.0.0.1',
    port: port(settings, redisPort),
    db: integer(settings, 'db') ?? 0,
    ...credentials(text(settings, 'username'), text(settings, 'password')),
  }
  const tls = settings['tls'] ?? settings['ssl'] ?? false
  if (tls !== false) address.tls = readTlsSettings(tls, 'redis tls')
  return {
    address: { ...address, ...sentinelOptions(settings, address.tls) },
    autoReconnect: settings['auto_reconnect'] !== false,
  }
}

function urlAddress(url: string, setting: string, defaultPort: number): RedisAddress {
  if (!URL.canParse(url)) throw new Error(`${setting} is not a URL; expected redis://[:password@]host[:port][/db]`)
  const { protocol, hostname, port, pathname, username, password } = new URL(url)
  if (protocol !== 'redis:' && protocol !== 'rediss:') {
    throw new Error(`${setting} has the scheme ${protocol}; expected redis: or rediss:`)
  }
  const db = pathname.slice(1)
  if (!/^\d*$/.test(db)) throw new Error(`${setting} names the database ${db}; expected a number`)
  return {
    host: hostname.replace(/^\[|\]$/g, '') || '127.0.0.1',
    port: Number(port || defaultPort),
    db: Number(db || 0),
    ...credentials(decoded(username, setting), decoded(password, setting)),
    ...(protocol === 'rediss:' && { tls: {} }),
  }
}

function decoded(part: string, setting: string): string | undefined {
  try {
    return decodeURIComponent(part) || undefined
  } catch {
    throw new Error(`${setting} has a user or password that is not percent-encoded correctly`)
  }
}

function credentials(username: string | undefined, password: string | undefined): Partial<RedisAddress> {
  return { ...(username !== undefined && { username }), ...(password !== undefined && { password }) }
}

function sentinelOptions(settings: JsonObject, tls: ConnectionOptions | undefined): Partial<RedisAddress> {
  const sentinels = sentinelAddresses(settings['sentinels'])
  if (sentinels.length === 0) return {}
  const { username, password } = sentinels.find(sentinel => sentinel.password !== undefined) ?? {}
  const secure = sentinels.find(sentinel => sentinel.tls !== undefined)
  return {
    sentinels: sentinels.map(({ host, port }) => ({ host, port })),
    name: text(settings, 'master') ?? text(settings, 'master_group') ?? 'mymaster',
    ...(username !== undefined && { sentinelUsername: username }),
    ...(password !== undefined && { sentinelPassword: password }),
    ...(secure?.tls && { sentinelTLS: secure.tls }),
    ...(tls && { enableTLSForSentinelMode: true }),
  }
}

function sentinelAddresses(sentinels: Json | undefined): RedisAddress[] {
  if (sentinels === undefined || sentinels === null) return []
  const list = typeof sentinels === 'string' ? sentinels.split(',') : sentinels
  if (!Array.isArray(list)) throw new Error(sentinelForms)
  return list.map(sentinel => {
    if (typeof sentinel === 'string') return urlAddress(sentinel.trim(), 'redis sentinels', sentinelPort)
    if (!isObject(sentinel)) throw new Error(sentinelForms)
    return { host: text(sentinel, 'host') ?? '127.0.0.1', port: port(sentinel, sentinelPort), db: 0 }
  })
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
  if (typeof number === 'number' && Number.isSafeInteger(number) && number >= 0) return number
  throw new Error(`redis ${key} must be a whole number`)
}

function port(settings: JsonObject, fallback: number): number {
  const number = integer(settings, 'port') ?? fallback
  if (number > 65535) throw new Error('redis port must be a whole number up to 65535')
  return number
}
