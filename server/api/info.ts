import { setTimeout as sleep } from 'node:timers/promises'
import { sensuVersion } from '../../sensu/defaults.js'
import { entriesOf, fromEntries, toNumber } from '../../sensu/json-value.js'
import { redact, redactUrl } from '../../sensu/redact.js'
import { epochSeconds } from '../../sensu/results.js'
import type { Json, JsonObject } from '../../sensu/types.js'
import type { QueueStats } from '../../transport/transport.js'
import { type Answer, noContent, ok } from './answer.js'
import { defaultCors } from './cors.js'
import type { ApiParts } from './parts.js'
import { wholeNumber } from './query.js'
import type { ApiRequest } from './request.js'
import type { Route } from './router.js'

/** A server whose description is older than this is not shown, seconds (Sensu 1.9). */
const SERVER_LIFETIME_SECONDS = 30

/** As long as a broker may take to say how full a queue is. */
const STATS_TIMEOUT_MS = 5000

export const infoRoutes: readonly Route[] = [
  { paths: ['/info'], GET: getInfo, offline: true },
  { paths: ['/health'], GET: getHealth, offline: true },
  { paths: ['/settings'], GET: getSettings },
]

async function getInfo(parts: ApiParts): Promise<Answer> {
  const { settings, store, transport, settingsDigest } = parts
  const { keepalives, results } = await queues(parts)
  return ok({
    sensu: { version: sensuVersion, settings: { hexdigest: settingsDigest() } },
    transport: {
      name: settings.transport.name,
      keepalives: { ...keepalives },
      results: { ...results },
      connected: transport.connected,
    },
    redis: { connected: store.connected },
    servers: await servers(parts),
  })
}

async function servers({ store }: ApiParts): Promise<JsonObject[]> {
  const oldest = epochSeconds(Date.now()) - SERVER_LIFETIME_SECONDS
  const found = store.connected ? await store.views.servers().catch(() => []) : []
  return found.filter(({ timestamp }) => (toNumber(timestamp) ?? 0) >= oldest)
}

interface Queues {
  keepalives: QueueStats | Unknown
  results: QueueStats | Unknown
}

type Unknown = { messages: null; consumers: null }

/** Null while the transport is away, or does not say. */
async function queues({ transport }: ApiParts): Promise<Queues> {
  const unknown: Queues = {
    keepalives: { messages: null, consumers: null },
    results: { messages: null, consumers: null },
  }
  if (!transport.connected) return unknown
  const asked = Promise.all([transport.stats('keepalives'), transport.stats('results')]).then(
    ([keepalives, results]) => ({ keepalives, results }),
    () => unknown,
  )
  return Promise.race([asked, sleep(STATS_TIMEOUT_MS, unknown, { ref: false })])
}

/** 204, or 412 with what is wrong: connections, and for each limit that is asked for both queues. */
async function getHealth(parts: ApiParts, { query }: ApiRequest): Promise<Answer> {
  const problems = [
    ...(parts.store.connected ? [] : ['not connected to redis']),
    ...(parts.transport.connected ? [] : ['not connected to transport']),
  ]
  if (problems.length === 0) problems.push(...(await queueProblems(parts, query.values)))
  return problems.length === 0 ? noContent : { ...ok(problems), status: 412 }
}

async function queueProblems(parts: ApiParts, values: ReadonlyMap<string, string>): Promise<string[]> {
  const consumers = wholeNumber(values.get('consumers'))
  const messages = wholeNumber(values.get('messages'))
  if (consumers === undefined && messages === undefined) return []
  const { keepalives, results } = await queues(parts)
  // it broke off, or does not answer: nothing can be said of the queues
  if (keepalives.messages === null || results.messages === null) return ['not connected to transport']
  const named = [
    ['keepalive', keepalives],
    ['result', results],
  ] as const
  return [
    ...named
      .filter(([, queue]) => consumers !== undefined && queue.consumers < consumers)
      .map(([name, queue]) => `${name} consumers (${queue.consumers}) less than min_consumers (${consumers})`),
    ...named
      .filter(([, queue]) => messages !== undefined && queue.messages > messages)
      .map(([name, queue]) => `${name} messages (${queue.messages}) greater than max_messages (${messages})`),
  ]
}

/** The settings in force, with the CORS headers that are sent, without secrets unless asked for with `redacted=false`. */
function getSettings({ settings }: ApiParts, { query }: ApiRequest): Answer {
  const { api = {} } = settings
  const shown: JsonObject = { ...settings, api: { ...api, cors: api['cors'] ?? defaultCors } }
  return ok(query.values.get('redacted') === 'false' ? shown : withoutSecrets(shown))
}

/** Besides what Sensu hides, passwords in the URLs of Redis and RabbitMQ. */
function withoutSecrets(settings: JsonObject): JsonObject {
  const hidden = redact(settings)
  return fromEntries(
    entriesOf(hidden).map(([key, value]) => [
      key,
      key === 'redis' || key === 'rabbitmq' ? withoutPasswords(value) : value,
    ]),
  )
}

function withoutPasswords(value: Json): Json {
  if (Array.isArray(value)) return value.map(withoutPasswords)
  return typeof value === 'string' ? redactUrl(value) : value
}
