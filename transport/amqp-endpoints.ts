import type { ConnectionOptions } from 'node:tls'
import type { Options, SocketOptions } from 'amqplib'
import { readTlsSettings } from '../sensu/tls-settings.js'
import { TransportError } from './transport.js'

/** One broker as amqplib wants it, from one entry of the `rabbitmq` settings. */
export interface AmqpEndpoint {
  connect: Options.Connect
  socket: SocketOptions
  /** Unacknowledged messages the broker may have under way per consumer. */
  prefetch: number
  /** For log lines. */
  user: string
  host: string
}

const CONNECT_TIMEOUT_SECONDS = 3
const FRAME_MAX_BYTES = 131072

/**
 * The brokers named by the `rabbitmq` settings: a hash, an AMQP URL, an array of either, or nothing (all defaults).
 * `prefetch` where they say nothing. TLS files are read here, so that a missing one is known at once. Throws a TransportError (`configuration`).
 */
export function amqpEndpoints(settings: unknown, prefetch = 1): AmqpEndpoint[] {
  const entries = Array.isArray(settings) ? settings : [settings ?? {}]
  if (entries.length === 0) throw invalid('rabbitmq must name at least one broker, got []')
  return entries.map(entry =>
    typeof entry === 'string' ? endpointOfUrl(entry, prefetch) : endpointOfHash(entry, prefetch),
  )
}

function endpointOfUrl(text: string, prefetch: number): AmqpEndpoint {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url?.protocol !== 'amqp:' && url?.protocol !== 'amqps:') {
    throw invalid('rabbitmq must be a URL like amqp://user:password@host:5672/%2Fvhost')
  }
  const secure = url.protocol === 'amqps:'
  return endpointOfHash(
    {
      host: url.hostname.replace(/^\[|\]$/g, ''),
      port: url.port === '' ? (secure ? 5671 : 5672) : Number(url.port),
      vhost: decodeURIComponent(url.pathname.slice(1)) || '/',
      user: decodeURIComponent(url.username) || 'guest',
      password: decodeURIComponent(url.password) || 'guest',
      ssl: secure,
      heartbeat: url.searchParams.has('heartbeat') ? Number(url.searchParams.get('heartbeat')) : undefined,
    },
    prefetch,
  )
}

function endpointOfHash(entry: unknown, prefetch: number): AmqpEndpoint {
  if (!isHash(entry)) throw invalid('rabbitmq must be a hash, a URL string, or an array of these')
  const ssl = entry['ssl'] ?? false
  const host = text(entry, ['host'], '127.0.0.1')
  const user = text(entry, ['user', 'username'], 'guest')
  const timeoutSeconds = number(entry, ['timeout', 'connection_timeout'], CONNECT_TIMEOUT_SECONDS)
  return {
    host,
    user,
    prefetch: number(entry, ['prefetch'], prefetch),
    connect: {
      protocol: ssl === false ? 'amqp' : 'amqps',
      hostname: host,
      port: number(entry, ['port'], 5672),
      // amqplib takes the vhost of an object as it would stand in a URL
      vhost: encodeURIComponent(text(entry, ['vhost'], '/')),
      username: user,
      password: text(entry, ['password', 'pass'], 'guest'),
      frameMax: number(entry, ['frame_max'], FRAME_MAX_BYTES),
      ...heartbeat(entry),
    },
    socket: { noDelay: true, timeout: timeoutSeconds * 1000, ...(ssl === false ? {} : tlsOptions(ssl)) },
  }
}

/** Without a heartbeat of our own the broker's proposal is taken. */
function heartbeat(entry: Record<string, unknown>): { heartbeat?: number } {
  const seconds = number(entry, ['heartbeat', 'heartbeat_interval'], Number.NaN)
  return Number.isNaN(seconds) ? {} : { heartbeat: seconds }
}

function tlsOptions(ssl: unknown): ConnectionOptions {
  try {
    return readTlsSettings(ssl, 'rabbitmq ssl')
  } catch (cause) {
    throw new TransportError('configuration', cause instanceof Error ? cause.message : String(cause), { cause })
  }
}

function text(entry: Record<string, unknown>, names: string[], fallback: string): string {
  const value = firstOf(entry, names)
  if (value === undefined) return fallback
  if (typeof value !== 'string') throw invalid(`rabbitmq ${names[0]} must be a string`)
  return value
}

function number(entry: Record<string, unknown>, names: string[], fallback: number): number {
  const value = firstOf(entry, names)
  if (value === undefined) return fallback
  const digits = typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value
  if (typeof digits !== 'number' || !(digits >= 0)) throw invalid(`rabbitmq ${names[0]} must be a number`)
  return digits
}

function firstOf(entry: Record<string, unknown>, names: string[]): unknown {
  return names.map(name => entry[name] ?? undefined).find(value => value !== undefined)
}

function isHash(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function invalid(message: string): TransportError {
  return new TransportError('configuration', message)
}
