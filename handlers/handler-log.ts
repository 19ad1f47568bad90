import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import type { SensuEvent } from '../plugin/event.js'
import { headline, outputText } from '../plugin/event-text.js'
import { type Action, defineHandler, type HandlerContext } from '../plugin/handler.js'
import { receiverAddress } from '../plugin/receiver-address.js'
import { retry } from '../plugin/retry.js'
import { filePathRule, oneLineRule } from '../plugin/setting-rules.js'
import {
  cutBytes,
  facilities,
  formatSyslog,
  parseSyslogAddress,
  type SyslogAddress,
  sendDatagram,
  sendStream,
  type severities,
} from '../plugin/syslog.js'
import { printableJson } from '../plugin/text.js'
import { Spawner } from '../sensu/spawn.js'

const severityOf: Readonly<Record<SensuEvent['status'], (typeof severities)[number]>> = {
  OK: 'info',
  WARNING: 'warning',
  CRITICAL: 'crit',
  UNKNOWN: 'err',
}

export default defineHandler({
  name: 'handler-log',
  summary: 'Writes each event as one line of JSON to a file, or to syslog.',
  description: `A file is opened, appended to with a single write, and closed for each event: several handlers at once do not mix their lines, and log rotation needs no signal. The folder must be there and be
writable for the user of the Sensu server. A new file has the mode 0640.

\`syslog\` is \`udp://HOST[:PORT]\`, \`tcp://HOST[:PORT]\` (RFC 5424; over TCP with the length in front, RFC 6587) or \`unix:///dev/log\`. A socket of the Unix kind that takes datagrams, as \`/dev/log\` does, is
reached through \`logger\` of util-linux, since Node.js has none. CRITICAL is \`crit\`, WARNING \`warning\`, UNKNOWN \`err\`, a resolution \`info\`. Nobody confirms what goes by UDP.

A line longer than \`max_bytes\` is written with the output cut, and \`"truncated":true\`; with \`"content": "event"\` the whole event is written if it is short enough, else what \`summary\` would write.`,
  settings: {
    file: { type: 'text', rule: filePathRule, summary: 'The file to append to, an absolute path.' },
    syslog: {
      type: 'text',
      rule: address => (parseSyslogAddress(address) ? undefined : `must be ${syslogForms}`),
      summary: 'Where syslog listens: `udp://HOST:514`, `tcp://HOST:514` or `unix:///dev/log`.',
    },
    content: {
      type: 'choice',
      choices: ['summary', 'event'],
      default: 'summary',
      summary: 'What to write: the essentials, or the whole event as the server sends it.',
    },
    facility: { type: 'choice', choices: facilities, default: 'daemon', summary: "syslog's facility." },
    tag: { type: 'text', rule: oneLineRule, default: 'sensu', summary: "syslog's name of the program." },
    max_bytes: {
      type: 'integer',
      default: 8192,
      minimum: 480,
      maximum: 1_048_576,
      summary: 'Longest line; by UDP at most 65,000.',
    },
  },
  sample: { file: '/var/log/sensu/events.json' },
  relations: [
    (_, isGiven) => (isGiven('file') || isGiven('syslog') ? [] : ['file is missing: give file, syslog or both']),
    ({ syslog, max_bytes: maxBytes }) =>
      syslog?.startsWith('udp:') && maxBytes > longestDatagram
        ? [`max_bytes must be at most ${longestDatagram} with syslog by UDP`]
        : [],
  ],
  handle(event, { file, syslog, content, facility, tag, max_bytes: maxBytes }, context): Action {
    const address = syslog === undefined ? undefined : parseSyslogAddress(syslog)
    const line = (bytes: number) => eventLine(event, content === 'event', bytes, context.now())
    const head = { facility, severity: severityOf[event.status], timeMs: context.now(), hostname: context.hostname }
    const text = line(maxBytes - longestHead)
    const message = formatSyslog({ ...head, application: tag, kind: event.action, text }, maxBytes)
    const fileLine = line(maxBytes - 1)
    const priority = `${facility}.${head.severity}`
    return {
      preview: [
        ...(file === undefined ? [] : [`${file}: ${fileLine}`]),
        ...(address === undefined ? [] : [`${syslog}: ${message}`]),
      ].join('\n'),
      async run() {
        const writeFile = async (path: string) => {
          context.stage(`writing to ${path}`)
          await appendLine(path, fileLine)
          return `written to ${path}`
        }
        const send = async (to: SyslogAddress) => {
          context.stage(`writing to ${syslog}`)
          await toSyslog(message, to, { text, tag, priority }, context)
          return `sent to ${syslog}`
        }
        return allOf([
          ...(file === undefined ? [] : [writeFile(file)]),
          ...(address === undefined ? [] : [send(address)]),
        ])
      },
    }
  },
})

/** What was done; one that fails does not keep the other from its work. */
async function allOf(works: readonly Promise<string>[]): Promise<string> {
  const results = await Promise.allSettled(works)
  const done = results.flatMap(result => (result.status === 'fulfilled' ? [result.value] : []))
  const failed = results.flatMap(result => (result.status === 'rejected' ? [result.reason] : []))
  if (failed.length === 0) return done.join(', ')
  const reasons = failed.map(error => (error instanceof Error ? error.message : String(error)))
  throw new Error([...reasons, ...done].join('; '))
}

const longestDatagram = 65_000
const syslogForms = 'udp://HOST:PORT, tcp://HOST:PORT or unix:///PATH (of at most 107 bytes)'
/** Bytes before the text of a syslog message, the longest names included. */
const longestHead = 400

/** One line of printable JSON, at most `maxBytes` long. */
function eventLine(event: SensuEvent, whole: boolean, maxBytes: number, nowMs: number): string {
  if (whole && Buffer.byteLength(event.json) <= maxBytes) {
    const text = printableJson(event.raw)
    if (Buffer.byteLength(text) <= maxBytes) return text
  }
  const { id, action, client, origin, check, status, occurrences, history, lastOk, lastStateChange, silenced } = event
  const summary = {
    time: new Date(nowMs).toISOString(),
    action,
    status,
    client,
    origin,
    check,
    message: headline(event),
    occurrences,
    last_ok: lastOk,
    last_state_change: lastStateChange,
    history: history.join(','),
    silenced,
    id,
  }
  const output = outputText(event, maxBytes)
  const short = printableJson({ ...summary, output })
  if (Buffer.byteLength(short) <= maxBytes) return short
  // JSON writes a byte of the output with six at most.
  const room = Math.floor(
    (maxBytes - Buffer.byteLength(printableJson({ ...summary, output: '', truncated: true }))) / 6,
  )
  const cut = room > 0 ? { output: cutBytes(Buffer.from(output), room).toString() } : {}
  const line = printableJson({ ...summary, ...cut, truncated: true })
  return Buffer.byteLength(line) <= maxBytes
    ? line
    : printableJson({ time: summary.time, action, status, id: id.slice(0, 40), truncated: true })
}

async function appendLine(path: string, text: string): Promise<void> {
  const bytes = Buffer.from(`${text}\n`)
  // Without O_NONBLOCK a FIFO that nobody reads would hold us up.
  const flags = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK
  try {
    const file = await open(path, flags, 0o640)
    try {
      const { bytesWritten } = await file.write(bytes)
      if (bytesWritten < bytes.length) throw new Error(`only ${bytesWritten} of ${bytes.length} bytes were taken`)
    } finally {
      await file.close()
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new Error(
      `cannot append to ${path}: ${reason}: make it writable for this user, and look whether there is room`,
    )
  }
}

interface ForLogger {
  readonly text: string
  readonly tag: string
  readonly priority: string
}

async function toSyslog(message: Buffer, to: SyslogAddress, logger: ForLogger, context: HandlerContext): Promise<void> {
  await retry(context, async timeoutMs => {
    const address = to.kind === 'unix' ? to : { ...to, host: await receiverAddress(to.host, context, timeoutMs) }
    if (address.kind === 'udp') return sendDatagram(message, address)
    try {
      await sendStream(message, address, { timeoutMs, signal: context.signal })
    } catch (error) {
      const takesDatagrams = error instanceof Error && 'code' in error && error.code === 'EPROTOTYPE'
      if (!takesDatagrams || address.kind !== 'unix') throw error
      await throughLogger(address.path, logger, context)
    }
  })
}

/** A local daemon completes the head of what comes in `logger`'s own form; its socket's other end is asked for nothing. */
async function throughLogger(path: string, { text, tag, priority }: ForLogger, context: HandlerContext): Promise<void> {
  const words = [
    'logger',
    '--socket',
    path,
    '--tag',
    tag,
    '--priority',
    priority,
    '--size',
    String(text.length * 4 + 1),
  ]
  const spawner = new Spawner({ limit: 1, maxOutputBytes: 10_000 })
  const command = words.map(word => `'${word.replaceAll("'", "'\\''")}'`).join(' ')
  const { output, status } = await spawner.run({ command, stdin: `${text}\n`, signal: context.signal })
  spawner.close()
  if (status !== 0)
    throw new Error(`cannot write to syslog at ${path}: logger says: ${output.toString().trim() || status}`)
}
