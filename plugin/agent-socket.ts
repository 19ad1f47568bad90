import { createConnection, type Socket } from 'node:net'
import { parseAddress } from './address.js'
import type { ExitStatus } from './status.js'

/** One guest's result, as the client socket of the agent takes it. */
export interface GuestResult {
  /** The guest's name in Sensu's allowed characters. */
  readonly source: string
  readonly output: string
  readonly status: ExitStatus
  /** The guest is gone and no result will follow: whoever waits for one (`ttl`) must not. Not sent. */
  readonly last?: true
}

/** Results per connection: the reference parses all it has at every chunk, so one huge array would cost it seconds. */
const batchSize = 50
const longestAnswerBytes = 64

/**
 * Hands results to the agent's client socket: one JSON array per connection, which it answers with `ok`. Rejects with what was tried, where
 * and what to do.
 */
export async function sendResults(
  results: readonly (GuestResult & { readonly name: string })[],
  address: string,
  signal: AbortSignal,
): Promise<void> {
  const target = parseAddress(address, '--agent-socket')
  for (let first = 0; first < results.length; first += batchSize) {
    const answer = await exchange(target, JSON.stringify(results.slice(first, first + batchSize)), signal).catch(
      error => {
        const reason = error instanceof Error ? error.message : String(error)
        throw new Error(
          `cannot hand ${results.length - first} guest results to the agent at ${address}: ${reason}: start sensu-kvm-agent, or name its client socket with --agent-socket`,
        )
      },
    )
    if (answer !== 'ok')
      throw new Error(`the agent at ${address} refused a guest's result with "${answer}": see its log`)
  }
}

function exchange(target: { host: string; port: number }, text: string, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket: Socket = createConnection({ ...target, signal })
    let answer = ''
    socket.setEncoding('utf8')
    socket.once('error', reject)
    socket.once('connect', () => socket.write(text))
    socket.on('data', (chunk: string) => {
      answer += chunk
      if (answer === 'ok' || answer.length > longestAnswerBytes) socket.end()
    })
    socket.once('close', () => resolve(answer.trim().slice(0, longestAnswerBytes)))
  })
}
