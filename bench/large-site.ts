import { run } from '../scripts/services/process.js'
import { clientKey, clientsKey, eventsKey, historyKey, lastOkKey, resultKey, resultsKey } from '../store/keys.js'

/** How large a site is. */
export interface SiteSize {
  clients: number
  /** Of each client; one of them fails and has an event. */
  checks: number
}

const clientsAtOnce = 500
/** What Sensu keeps. */
const historyLength = 21

/** Name of the index-th client; of the index-th check of each. */
export const clientName = (index: number) => `client-${String(index).padStart(5, '0')}`
export const checkName = (index: number) => `check-kvm-${index}`

/** Fills a Redis as a site of that size would have in time, in Sensu's layout, with redis-cli's bulk loading. */
export async function fillSite(redis: { host: string; port: number }, { clients, checks }: SiteSize): Promise<void> {
  const nowSeconds = Math.floor(Date.now() / 1000)
  for (let first = 0; first < clients; first += clientsAtOnce) {
    const commands: string[] = []
    for (let client = first; client < Math.min(clients, first + clientsAtOnce); client++) {
      commands.push(...clientCommands(client, checks, nowSeconds))
    }
    const { host, port } = redis
    await run('redis-cli', ['-h', host, '-p', String(port), '--pipe'], { input: commands.join('') })
  }
}

function clientCommands(index: number, checks: number, nowSeconds: number): string[] {
  const name = clientName(index)
  const names = Array.from({ length: checks }, (_, check) => checkName(check))
  const client = clientOf(index, nowSeconds)
  const failing = index % checks
  const event = eventOf(client, checkOf(failing, 2, nowSeconds), nowSeconds)
  return [
    command('SADD', clientsKey, name),
    command('SET', clientKey(name), JSON.stringify(client)),
    command('SADD', resultsKey(name), ...names),
    command('HSET', eventsKey(name), checkName(failing), JSON.stringify(event)),
    ...names.flatMap((check, at) => {
      const status = at === failing ? 2 : 0
      const history = Array.from({ length: historyLength }, () => String(status))
      return [
        command('SET', resultKey(name, check), JSON.stringify(checkOf(at, status, nowSeconds))),
        command('RPUSH', historyKey(name, check), ...history),
        command('SET', lastOkKey(name, check), String(nowSeconds)),
      ]
    }),
  ]
}

/** As Redis' protocol wants it (RESP). */
function command(...words: string[]): string {
  return `*${words.length}\r\n${words.map(word => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`
}

function clientOf(index: number, timestamp: number): object {
  const name = clientName(index)
  return {
    ...{ name, address: `10.0.${index >> 8}.${index & 255}`, version: '1.9.0', timestamp },
    ...{ subscriptions: ['base', 'kvm', `client:${name}`], keepalive: { thresholds: { warning: 120, critical: 180 } } },
    ...{ environment: 'production', dashboard: { link: `https://hosts.example/${name}` } },
  }
}

/** A result of the size that a check of ours has. */
export function checkOf(index: number, status: number, nowSeconds: number): object {
  return {
    ...{ name: checkName(index), command: 'check-kvm-memory --warning 90 --critical 95', interval: 60 },
    ...{ subscribers: ['kvm'], handlers: [], standalone: false, issued: nowSeconds, executed: nowSeconds },
    ...{ duration: 0.012, status, type: 'standard' },
    output: `check-kvm-memory ${status === 0 ? 'OK' : 'CRITICAL'}: 12 guests, fullest guest-7 at 71.2% of 4096 MiB | used=2916MB;;;0\n`,
  }
}

function eventOf(client: object, check: object, nowSeconds: number): object {
  const history = Array.from({ length: historyLength }, () => '2')
  return {
    ...{ id: '0b5d6b3c-3a53-4d4c-9d3e-0a4ff0c3a111', client, check: { ...check, history, total_state_change: 0 } },
    ...{ occurrences: historyLength, occurrences_watermark: historyLength, last_ok: nowSeconds, action: 'create' },
    ...{ timestamp: nowSeconds, last_state_change: nowSeconds, silenced: false, silenced_by: [] },
  }
}
