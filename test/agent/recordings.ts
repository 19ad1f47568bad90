import { readdirSync, readFileSync } from 'node:fs'
import { hostname, networkInterfaces } from 'node:os'
import { fileURLToPath } from 'node:url'
import type { LogLine } from '../support/service-process.js'
import { type Difference, differences } from './deliberate-differences.js'

const fixtures = fileURLToPath(new URL('../../../test/fixtures/', import.meta.url))

/** Which test replays which recorded cases, by their names: each belongs to exactly one of them. */
export const suites = {
  'agent/recorded-requests': /^(req|odd)_/,
  'agent/recorded-sockets': /^(tcp_|udp_|http_(?!protect_all|no_credentials))/,
  'agent/recorded-configuration': /^cfg_/,
  'agent/recorded-life':
    /^(keepalive|bad|malformed_request|extension|standalone|signature|deregistration|stop|signals|transport|rabbit|rabbitmq|redis)_|^http_(protect_all|no_credentials)/,
  'sensu/recorded-tables': /^table_/,
} as const

type Observed = Record<string, unknown>

/** One case recorded from Sensu 1.9: what was put in, and what the agent is expected to do, deliberate differences included. */
export interface RecordedCase {
  name: string
  input: {
    raw: string | { base64: string }
    datagram: string
    client_config: object[] | null
    env: Record<string, string>
    conf: object
    [part: string]: unknown
  }
  /** As recorded, but for members that a difference replaces. */
  observed: Observed
  /** JSON texts of the results, in the order of the recording. */
  results: string[]
  /** The log lines without the times. */
  log: LogLine[]
}

/** Names of all recorded cases. */
export function allCases(): string[] {
  return readdirSync(`${fixtures}client`).map(file => file.replace('.json', ''))
}

/** The recorded cases of one suite. It must take every one of them: `left` tells which it has not. */
export class Recordings {
  readonly names: readonly string[]
  readonly #left: Set<string>

  constructor(suite: keyof typeof suites) {
    this.names = allCases().filter(name => suites[suite].test(name))
    this.#left = new Set(this.names)
  }

  get left(): string[] {
    return [...this.#left]
  }

  matching(pattern: RegExp): RecordedCase[] {
    return this.names.filter(name => pattern.test(name)).map(name => this.take(name))
  }

  /** Throws when the case is not of this suite, or a difference that is said to be there changes nothing. */
  take(name: string): RecordedCase {
    if (!this.names.includes(name)) throw new Error(`${name} is not a case of this suite`)
    this.#left.delete(name)
    const { input, observed } = JSON.parse(readFileSync(`${fixtures}client/${name}.json`, 'utf8'))
    const recorded = { name, input, observed, results: resultsOf(observed), log: linesOf(observed) }
    return differences.filter(({ cases }) => cases.test(name)).reduce(withDifference, recorded)
  }
}

/** What a recorded client was configured with, by its letters: `safe`, or `a__01_client` for one of several files. */
export function recordedConfiguration(name: string) {
  const file = name.includes('__') ? name : `${name}__c`
  return JSON.parse(readFileSync(`${fixtures}client-config/${file}.json`, 'utf8'))
}

/** Where the results of a case were noted, byte for byte if they were. */
function resultsOf(observed: Observed): string[] {
  const noted = ['raw_bodies', 'results_raw', 'raw', 'results_list', 'results'].map(key => observed[key])
  const results = noted.find(value => Array.isArray(value)) as unknown[] | undefined
  return (results ?? []).filter(Boolean).map(result => (typeof result === 'string' ? result : textOf(result)))
}

function textOf(result: unknown): string {
  const { raw, body } = result as { raw?: string; body?: object }
  return raw ?? JSON.stringify(body ?? result)
}

function linesOf(observed: Observed): LogLine[] {
  const lines = observed['client_log'] ?? observed['log'] ?? observed['stdout_and_stderr'] ?? []
  return Array.isArray(lines) ? lines.flatMap(line => (typeof line === 'object' ? [withoutTime(line)] : [])) : []
}

function withoutTime({ timestamp: _, ...line }: LogLine): LogLine {
  return line
}

function withDifference(recorded: RecordedCase, difference: Difference): RecordedCase {
  const { observed, results, log, without, insert, replace = [], replaceInLog = [] } = difference
  const replaced = (text: string) => replacing(text, replace)
  const inLog = (line: LogLine) => JSON.parse(replacing(replaced(JSON.stringify(line)), replaceInLog))
  const expected = {
    ...recorded,
    observed: { ...recorded.observed, ...observed },
    results: (results ?? recorded.results).map(replaced),
    log: (log ?? recorded.log).filter(line => !without?.test(JSON.stringify(line))).map(inLog),
  }
  if (insert) expected.log.splice(1 + expected.log.findIndex(({ message }) => message === insert.after), 0, insert.line)
  if (JSON.stringify(expected) === JSON.stringify(recorded)) {
    throw new Error(`${recorded.name} does not differ: ${difference.reason}`)
  }
  return expected
}

function replacing(text: string, pairs: NonNullable<Difference['replace']>): string {
  return pairs.reduce((so, [from, to]) => so.replaceAll(from, to), text)
}

const ownAddress = Object.values(networkInterfaces())
  .flat()
  .find(address => address?.family === 'IPv4' && !address.internal)?.address

/** The same text for what differs in the machine only: its name and address are those of the recorded one. */
export function onRecordedMachine(text: string): string {
  return text.replaceAll(`"${hostname()}"`, '"vm"').replaceAll(`"${ownAddress}"`, '"192.0.2.2"')
}

/** The same text for what differs in times, ports and machine only. */
export function withoutPlace(text: string): string {
  return onRecordedMachine(text)
    .replace(/(\\*"(?:executed|issued|timestamp)\\*":)1\d{9}/g, '$10')
    .replace(/(\\*"duration\\*":)\d+(\.\d+)?/g, '$10')
    .replace(/(\\*"port\\*":)\d{4,5}/g, '$10')
    .replace(/"directory":"\/[^"]*(?=\/state\/)/g, '"directory":"')
    .replace(/host\.cpu 1 \d{10}/g, 'host.cpu 1 0')
}

/** Members of a log line whose words are the parser's, the resolver's or the runtime's. */
const foreignWords = /^(unexpected |getaddrinfo|undefined method|no implicit|.*\[parse\.c|Empty input|invalid symbol)/

/** Both logs as texts that are equal when they say the same: not when, and not in which words a parser puts it. */
export function comparableLogs(
  found: readonly LogLine[],
  wanted: readonly LogLine[],
  comparable = withoutPlace,
): { found: string[]; wanted: string[] } {
  const masks = wanted.map(line =>
    Object.entries(line).flatMap(([key, value]) =>
      key === 'backtrace' || (/^(parse_)?error$/.test(key) && foreignWords.test(String(value))) ? [key] : [],
    ),
  )
  const text = (line: LogLine, index: number) => {
    const masked = { ...withoutTime(line) }
    for (const key of masks[index] ?? []) if (key in masked) masked[key] = 'in its own words'
    return comparable(JSON.stringify(masked))
  }
  return { found: found.map(text), wanted: wanted.map(text) }
}

/** `level message`, with the reason where there is one, of every line from the level info on. */
export function told(lines: readonly LogLine[]): string[] {
  return lines.flatMap(({ level, message, reason }) => {
    if (level === 'debug') return []
    return [[level, message, ...(reason === undefined ? [] : [`(${String(reason)})`])].join(' ')]
  })
}
