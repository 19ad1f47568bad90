import { parseJson, stringifyJson } from '../../sensu/json.js'
import type { JsonObject } from '../../sensu/types.js'
import { at, fixture, list, object } from '../support/recorded-cases.js'

/** What is different on purpose from the recorded server and API: why, and what the answer is instead where the case is one request. */
export const deliberate: { [name: string]: { why: string; answer?(recorded: JsonObject): JsonObject } } = {
  'api-auth-malformed': {
    why: 'credentials that are none are not a fault of the server (quirk 16)',
    answer: () => object(fixture('api-auth-none')['observed']),
  },
  'api-cors-false': {
    why: '`cors: false` switches CORS off (quirk 11)',
    answer: withoutCors,
  },
  'api-rt-info': {
    why: '`cors: false` switches CORS off (quirk 11)',
    answer: withoutCors,
  },
  'api-clients-filter-urlenc': {
    why: 'values of a query are percent-decoded (quirk 7)',
    answer: recorded => {
      const clients = list(parseJson(String(at(fixture('api-clients'), 'observed', 'body'))))
      return { ...recorded, body: stringifyJson(clients.filter(client => at(client, 'address') === '127.0.0.1')) }
    },
  },
  'api-post-clients-keepalive-ok': {
    why: 'a client with a keepalive object is validated, not a fault of the server (quirk 5)',
    answer: () => ({ ...object(fixture('api-post-clients-full')['observed']), body: '{"name":"pc5"}' }),
  },
  'api-silenced-redis': {
    why: 'null is as good as nothing: `{"subscription": null, "check": "x"}` silences the check everywhere, not nothing',
  },
  'api-silenced-subscription-regex-quirk': { why: 'a subscription is a whole name, not a pattern (quirk 8)' },
  'redis-outage': { why: 'the consumers stay, so that the broker keeps what arrives (quirk 19)' },
  'server-sigterm-after-leaked-counter': {
    why: 'malformed messages are dropped and not counted as under way (quirk 1)',
  },
  'task-takeover-after-sigterm': {
    why: 'the locks are given back at the end, so that the tasks are taken over within seconds instead of a minute (quirk 13)',
  },
  'vectors-attributes-match': { why: "expressions assign nothing: `value = 'x'` is an error and does not match" },
  'redis-transport-server-state': { why: 'queues of the Redis transport are counted (quirk 10)' },
  'rabbitmq-queues-without-server': { why: 'queues that vanished are empty, the API does not hang (quirk 19)' },
  'api-silenced-id-suffix': {
    why: 'an id is a whole id (quirk 8)',
    answer: () => object(fixture('api-silenced-id-404')['observed']),
  },
}

/**
 * What is different on purpose in the logs of the cases replayed here: which recorded lines are not expected as they stand, and why.
 */
export const deliberateInLogs: readonly { why: string; concerns: (line: JsonObject) => boolean }[] = [
  {
    why: 'the recorded server had checks to publish meanwhile',
    concerns: ({ message }) => message === 'publishing check request',
  },
  {
    why: 'which tasks it has depends on how long it has run',
    concerns: ({ message }) => message === 'relinquishing server task',
  },
  { why: 'there is no call-home service; the note says so', concerns: line => 'note' in line },
  { why: 'a server describes itself', concerns: line => 'server' in line },
]

function withoutCors(recorded: JsonObject): JsonObject {
  return { ...recorded, headers: list(recorded['headers']).filter(header => !/^Access/.test(String(header))) }
}
