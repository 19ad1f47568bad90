import type { HandlerContext } from '../../plugin/handler.js'
import { deliver, type HttpSettings, RefusedError } from '../../plugin/http-delivery.js'
import { receiverAddress } from '../../plugin/receiver-address.js'
import { PassingError, retry } from '../../plugin/retry.js'
import { printable } from '../../plugin/text.js'
import { type BatchLimits, batchesOf, datagram } from './batches.js'
import { type Additions, graphiteLine, influxLine, opentsdbLine, opentsdbPoint, type WriteLine } from './lines.js'
import type { Point } from './point.js'
import { type Port, sendTcp, sendUdp } from './sockets.js'

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
  readonly http: HttpSettings
}

/** Where it is, without what the URL's path may hold. */
export function placeOf({ url }: Target): string {
  return `${url.protocol}//${url.host}`
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
export async function sendNumbers(
  target: Target,
  points: readonly Point[],
  additions: Additions,
  context: HandlerContext,
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
      sent += Math.max(0, batch.length - (refusal?.count ?? 0))
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
function sendBatch(target: Target, lines: readonly string[], context: HandlerContext): Promise<Refusal | undefined> {
  if (target.url.protocol === 'tcp:') return overTcp(target, lines, context)
  return target.store === 'opentsdb' ? toOpentsdb(target, lines, context) : toInfluxdb(target, lines, context)
}

/** A datagram that is lost is lost; only what the kernel knows is an error. */
async function sendDatagrams(
  target: Target,
  batches: readonly (readonly string[])[],
  context: HandlerContext,
): Promise<Pick<Delivery, 'sent' | 'failure'>> {
  try {
    await untilReached(target, context, (port, signal) => sendUdp(port, batches.map(textOf), signal))
    return { sent: batches.flat().length, failure: undefined }
  } catch (error) {
    return { sent: 0, failure: error instanceof Error ? error.message : String(error) }
  }
}

function overTcp(target: Target, lines: readonly string[], context: HandlerContext): Promise<Refusal | undefined> {
  return untilReached(target, context, async (port, signal) => {
    const reply = await sendTcp(port, [textOf(lines)], signal)
    const complaints = reply.split('\n').filter(line => line.trim() !== '')
    const [first] = complaints
    if (first === undefined) return undefined
    return { count: complaints.length, text: printable(first, 200) }
  })
}

/** The same numbers sent again are the same numbers in the store. */
function untilReached<T>(
  target: Target,
  context: HandlerContext,
  attempt: (port: Port, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { url, store } = target
  const port = url.port === '' ? defaultPorts[store] : Number(url.port)
  return retry(context, async timeoutMs => {
    const limit = AbortSignal.timeout(Math.ceil(timeoutMs))
    try {
      const host = await receiverAddress(url.hostname.replace(/^\[(.*)\]$/, '$1'), context, timeoutMs)
      return await attempt({ host, port }, AbortSignal.any([context.signal, limit]))
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      throw new PassingError(`cannot send to ${placeOf(target)}: ${reason}`, { cause: error })
    }
  })
}

async function toInfluxdb(
  target: Target,
  lines: readonly string[],
  context: HandlerContext,
): Promise<Refusal | undefined> {
  const path = target.store === 'influxdb2' ? 'api/v2/write' : 'write'
  const url = requestUrl(target, path, { ...target.query, precision: 'ns' })
  const headers = { 'Content-Type': 'text/plain; charset=utf-8', ...target.headers }
  return refusalOf(deliver({ url, headers, body: textOf(lines) }, target.http, context), body => {
    // Of a partial write it tells how many were dropped.
    return Number(/partial write:.*dropped=(\d+)/.exec(body)?.[1] ?? lines.length)
  })
}

function toOpentsdb(target: Target, lines: readonly string[], context: HandlerContext): Promise<Refusal | undefined> {
  const url = requestUrl(target, 'api/put', { details: '' })
  const headers = { 'Content-Type': 'application/json; charset=utf-8', ...target.headers }
  return refusalOf(deliver({ url, headers, body: `[${lines.join(',')}]` }, target.http, context), body => {
    const [, failed] = /"failed"\s*:\s*(\d+)/.exec(body) ?? []
    return failed === undefined ? lines.length : Number(failed)
  })
}

/** 400 is for numbers that are wrong; every other refusal holds for all that are to come. */
async function refusalOf(answer: Promise<unknown>, countIn: (body: string) => number): Promise<Refusal | undefined> {
  try {
    await answer
    return undefined
  } catch (error) {
    if (!(error instanceof RefusedError) || error.response.code !== '400') throw error
    const count = countIn(error.response.body.toString())
    return { count, text: error.message }
  }
}

function requestUrl({ url }: Target, path: string, query: Readonly<Record<string, string>>): string {
  const full = new URL(url)
  full.pathname = `${url.pathname.replace(/\/+$/, '')}/${path}`
  for (const [name, value] of Object.entries(query)) full.searchParams.set(name, value)
  return full.href
}

function textOf(lines: readonly string[]): string {
  return `${lines.join('\n')}\n`
}
