import type { HandlerContext } from '../../plugin/handler.js'
import { PassingError, retry } from '../../plugin/retry.js'
import { printable } from '../../plugin/text.js'
import { type BatchLimits, batchesOf, datagram } from './batches.js'
import { answerText, place, post } from './http.js'
import { type Additions, graphiteLine, influxLine, opentsdbLine, opentsdbPoint, type WriteLine } from './lines.js'
import type { Point } from './point.js'
import { sendTcp, sendUdp } from './sockets.js'

export const storeNames = ['graphite', 'influxdb', 'influxdb2', 'opentsdb'] as const
export type StoreName = (typeof storeNames)[number]

/** The ways into each store, by the URL's protocol. */
export const storeProtocols: Readonly<Record<StoreName, readonly string[]>> = {
  graphite: ['tcp', 'udp'],
  influxdb: ['http', 'https', 'udp'],
  influxdb2: ['http', 'https'],
  opentsdb: ['tcp', 'http', 'https'],
}

const defaultPorts: Readonly<Record<StoreName, number>> = {
  graphite: 2003,
  influxdb: 8089,
  influxdb2: 8086,
  opentsdb: 4242,
}

/** Where numbers go. */
export interface Target {
  readonly store: StoreName
  readonly url: URL
  /** Of requests over HTTP, such as the authorization. */
  readonly headers: Readonly<Record<string, string>>
  /** What the store wants in the URL of a request: database, organisation, bucket. */
  readonly query: Readonly<Record<string, string>>
  readonly caFile: string | undefined
}

/** How the handing-over ended; what is neither sent nor in one of the numbers was refused. */
export interface Delivery {
  readonly sent: number
  /** What the store said about numbers it refused, at most {@link mostRefusals}. */
  readonly refusals: readonly string[]
  /** Lines longer than a packet or request may be. */
  readonly tooLong: number
  /** Texts and truth values, for a store of numbers. */
  readonly noNumbers: number
  /** Why it ended before everything was sent. */
  readonly failure: string | undefined
}

type Sending = Pick<HandlerContext, 'signal' | 'timeLeftMs' | 'random'>
/** Numbers of a batch that a store refused, and what it said. */
interface Refusal {
  readonly count: number
  readonly text: string
}

const mostRefusals = 3
/** InfluxDB's documentation advises 5,000 to 10,000 lines a request. */
const influxRequest: BatchLimits = { lines: 5000, bytes: 1024 * 1024 }
/** OpenTSDB's advises 50 numbers a request, and takes no large ones unless told to. */
const opentsdbRequest: BatchLimits = { lines: 50, bytes: 32 * 1024 }
/** A connection has no limits; so much is one write. */
const connection: BatchLimits = { lines: 1_000_000, bytes: 64 * 1024 * 1024 }

/** The lines that would be sent. */
export function linesFor(target: Target, points: readonly Point[], additions: Additions): string[] {
  const write = writerFor(target)
  return points.flatMap(point => write(point, additions) ?? [])
}

/** Hands numbers to a store, in batches. What one batch holds up does not keep the others: a store that cannot be reached ends it, one that refuses numbers does not. */
export async function deliver(
  target: Target,
  points: readonly Point[],
  additions: Additions,
  context: Sending,
): Promise<Delivery> {
  const lines = linesFor(target, points, additions)
  const { batches, tooLong } = batchesOf(lines, limitsOf(target))
  const counts = { tooLong: tooLong.length, noNumbers: points.length - lines.length }
  if (target.url.protocol === 'udp:')
    return { ...(await sendDatagrams(target, batches, context)), refusals: [], ...counts }
  const refusals: string[] = []
  let sent = 0
  let failure: string | undefined
  for (const batch of batches) {
    try {
      const refusal = await sendBatch(target, batch, context)
      if (refusal !== undefined && refusals.length < mostRefusals) refusals.push(refusal.text)
      sent += batch.length - (refusal?.count ?? 0)
    } catch (error) {
      failure = error instanceof Error ? error.message : String(error)
      break
    }
  }
  return { sent, refusals, failure, ...counts }
}

function writerFor({ store, url }: Target): WriteLine {
  if (store === 'graphite') return graphiteLine
  if (store !== 'opentsdb') return influxLine
  if (url.protocol === 'tcp:') return opentsdbLine
  return (point, additions) => {
    const found = opentsdbPoint(point, additions)
    return found && JSON.stringify(found)
  }
}

function limitsOf({ store, url }: Target): BatchLimits {
  if (url.protocol === 'udp:') return datagram
  if (url.protocol === 'tcp:') return connection
  return store === 'opentsdb' ? opentsdbRequest : influxRequest
}

/** Returns what the store refused; throws when it cannot be reached, or would refuse everything. */
function sendBatch(target: Target, lines: readonly string[], context: Sending): Promise<Refusal | undefined> {
  if (target.url.protocol === 'tcp:') return overTcp(target, lines, context)
  return target.store === 'opentsdb' ? toOpentsdb(target, lines, context) : toInfluxdb(target, lines, context)
}

function portOf({ store, url }: Target): { host: string; port: number } {
  return {
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: url.port === '' ? defaultPorts[store] : Number(url.port),
  }
}

/** A datagram that is lost is lost; only what the kernel knows is an error. */
async function sendDatagrams(
  target: Target,
  batches: readonly (readonly string[])[],
  context: Sending,
): Promise<Pick<Delivery, 'sent' | 'failure'>> {
  try {
    await untilReached(target, context, signal => sendUdp(portOf(target), batches.map(textOf), signal))
    return { sent: batches.flat().length, failure: undefined }
  } catch (error) {
    return { sent: 0, failure: error instanceof Error ? error.message : String(error) }
  }
}

function overTcp(target: Target, lines: readonly string[], context: Sending): Promise<Refusal | undefined> {
  return untilReached(target, context, async signal => {
    const reply = await sendTcp(portOf(target), [textOf(lines)], signal)
    const complaints = reply.split('\n').filter(line => line.trim() !== '')
    const [first] = complaints
    if (first === undefined) return undefined
    return { count: Math.min(complaints.length, lines.length), text: printable(first, 200) }
  })
}

/** The same numbers sent again are the same numbers in the store. */
function untilReached<T>({ url }: Target, context: Sending, attempt: (signal: AbortSignal) => Promise<T>): Promise<T> {
  return retry(context, async timeoutMs => {
    try {
      return await attempt(AbortSignal.any([context.signal, AbortSignal.timeout(Math.ceil(timeoutMs))]))
    } catch (error) {
      throw new PassingError(
        `cannot send to ${place(url)}: ${error instanceof Error ? error.message : String(error)}`,
        { cause: error },
      )
    }
  })
}

async function toInfluxdb(target: Target, lines: readonly string[], context: Sending): Promise<Refusal | undefined> {
  const path = target.store === 'influxdb2' ? 'api/v2/write' : 'write'
  const url = requestUrl(target, path, { ...target.query, precision: 'ns' })
  const headers = { 'Content-Type': 'text/plain; charset=utf-8', ...target.headers }
  const answer = await post({ url, headers, body: textOf(lines), caFile: target.caFile }, context)
  if (answer.code >= 200 && answer.code < 300) return undefined
  const text = `${place(url)} answered ${answerText(answer)}`
  // 400 for lines that are wrong (a partial write tells how many were dropped); everything else holds for all lines to come.
  if (answer.code !== 400) throw new Error(`${text}: ${remedyFor(answer.code)}`)
  const dropped = Number(/partial write:.*dropped=(\d+)/.exec(answer.body)?.[1] ?? lines.length)
  return { count: Math.min(dropped, lines.length), text }
}

function remedyFor(code: number): string {
  if (code === 401 || code === 403) return 'correct user and password, or the token and what it permits'
  if (code === 404) return 'correct database, retention_policy, org or bucket, or the path of url'
  return code >= 300 && code < 400 ? 'redirections are not followed, correct url' : 'see the log of the store'
}

async function toOpentsdb(target: Target, lines: readonly string[], context: Sending): Promise<Refusal | undefined> {
  const url = requestUrl(target, 'api/put', { details: '' })
  const headers = { 'Content-Type': 'application/json; charset=utf-8', ...target.headers }
  const answer = await post({ url, headers, body: `[${lines.join(',')}]`, caFile: target.caFile }, context)
  if (answer.code === 200 || answer.code === 204) return undefined
  const { failed, errors } = detailsOf(answer.body)
  if (answer.code !== 400 || failed === undefined)
    throw new Error(`${place(url)} answered ${answerText(answer)}: ${remedyFor(answer.code)}`)
  return {
    count: Math.min(failed, lines.length),
    text: `${place(url)} refused ${failed} of ${lines.length}: ${errors}`,
  }
}

/** What OpenTSDB's answer to `?details` says. */
function detailsOf(body: string): { failed: number | undefined; errors: string } {
  try {
    const details: { failed?: unknown; errors?: unknown } = JSON.parse(body)
    const [first]: unknown[] = Array.isArray(details.errors) ? details.errors : []
    const failed = typeof details.failed === 'number' ? details.failed : undefined
    return { failed, errors: printable(JSON.stringify(first ?? ''), 200) }
  } catch {
    return { failed: undefined, errors: '' }
  }
}

function requestUrl({ url }: Target, path: string, query: Readonly<Record<string, string>>): URL {
  const full = new URL(url)
  full.pathname = `${url.pathname.replace(/\/+$/, '')}/${path}`
  for (const [name, value] of Object.entries(query)) full.searchParams.set(name, value)
  return full
}

function textOf(lines: readonly string[]): string {
  return `${lines.join('\n')}\n`
}
