import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { LogLine } from './agent-process.js'

const fixtures = fileURLToPath(new URL('../../../test/fixtures/', import.meta.url))

/** One case recorded from Sensu 1.9, as far as the agent's tests read it. */
export interface RecordedCase {
  input: {
    raw: string | { base64: string }
    datagram: string
    client_config: object[] | null
    env: Record<string, string>
    conf: object
    [part: string]: unknown
  }
  observed: {
    /** Bodies byte for byte, where they were recorded so. */
    raw: string[]
    results_raw: string[]
    results_list: string[]
    results: Record<string, unknown>[]
    messages: { raw: string; properties: object; routing_key: string }[]
    client_log: (LogLine | string)[]
    log: LogLine[]
    expected_phase_ms: number
    [part: string]: unknown
  }
}

/** A recorded case by its name. */
export function recordedCase(name: string): RecordedCase {
  return JSON.parse(readFileSync(`${fixtures}client/${name}.json`, 'utf8'))
}

/** What a recorded client was configured with, by its letters: `safe`, or `a` for one of its files, `a__01_client`. */
export function recordedConfiguration(name: string) {
  return JSON.parse(readFileSync(`${fixtures}client-config/${name.includes('__') ? name : `${name}__c`}.json`, 'utf8'))
}

/** The same text for what differs in times, ports, process ids and the machine's own address only. */
export function withoutPlace(text: string): string {
  return text
    .replace(/"(executed|issued|timestamp)":\d{10}/g, '"$1":0')
    .replace(/"duration":\d+(\.\d+)?/g, '"duration":0.0')
    .replace(/"port":\d{4,5}/g, '"port":0')
    .replace(/"address":"(?!127\.0\.0\.)[\d.]+"/g, '"address":"own"')
    .replace(/host\.cpu 1 \d{10}/g, 'host.cpu 1 0')
}

/** Names that the parser's and the resolver's own words are logged under. */
const parserTexts = /^(unexpected |getaddrinfo)/

/** Log lines as texts that can be compared: everything but when it was, and what only the parser or the resolver says. */
export function comparableLines(lines: readonly (LogLine | string)[]): string[] {
  return lines.flatMap(line => {
    if (typeof line === 'string') return []
    const { timestamp: _, ...rest } = line
    if (parserTexts.test(String(rest['error']))) rest['error'] = 'in its own words'
    return [withoutPlace(JSON.stringify(rest))]
  })
}

/** `level message`, with the reason where there is one, of every line from the level info on. */
export function told(lines: readonly (LogLine | string)[]): string[] {
  return lines.flatMap(line => {
    if (typeof line === 'string' || line.level === 'debug') return []
    const { level, message, reason } = line
    return [[level, message, ...(reason === undefined ? [] : [`(${String(reason)})`])].join(' ')]
  })
}
