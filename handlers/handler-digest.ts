import { randomUUID } from 'node:crypto'
import { realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { readEvent, type SensuEvent } from '../plugin/event.js'
import { tryLock } from '../plugin/file-lock.js'
import { stateDirectory } from '../plugin/file-state.js'
import { defineHandler, type HandlerContext } from '../plugin/handler.js'
import { directoryRule } from '../plugin/setting-rules.js'
import type { SettingTable, SettingValues } from '../plugin/settings-table.js'
import { printable, safeName } from '../plugin/text.js'
import { Spawner } from '../sensu/spawn.js'
import { digestEvent } from './digest/message.js'
import { EventSpool, type Waiting } from './digest/spool.js'

/** Kept for saying how it ended. */
const reserveMs = 500
const longestCommandBytes = 100_000
/** With less time left the next message is left to another process. */
const shortestDeliveryMs = 2000

const settings = {
  deliver_to: {
    type: 'text',
    required: true,
    rule: commandRule,
    summary:
      'Command of the handler that gets the message on its standard input, as in its definition for Sensu: `handler-mail -d /etc/sensu/conf.d`. Programs are looked for beside this one first.',
  },
  window: {
    type: 'seconds',
    default: 5,
    minimum: 0.1,
    maximum: 43_200,
    summary: 'How long nothing more must have come before the message is sent; at most half of `timeout`.',
  },
  max_lines: {
    type: 'integer',
    default: 50,
    minimum: 1,
    maximum: 1000,
    summary: 'Clients with a line of their own in one message; the others are counted.',
  },
  max_events: {
    type: 'integer',
    default: 1000,
    minimum: 1,
    maximum: 10_000,
    summary: 'Events of one host that wait at a time; further ones are only counted.',
  },
  state_dir: {
    type: 'text',
    rule: directoryRule,
    summary:
      'Directory where events wait. Default: SENSU_KVM_STATE_DIR, XDG_STATE_HOME/sensu-kvm, /var/lib/sensu-kvm if it belongs to this user, else one below TMPDIR.',
  },
} as const satisfies SettingTable
type Settings = SettingValues<typeof settings>

export default defineHandler({
  name: 'handler-digest',
  summary: "Makes one message of a storm of events of one host's guests, and gives it to another handler.",
  description: `Sensu starts a handler for each event. The first one for a host collects what the others leave in a directory and end; when nothing has come for \`window\` seconds (or half of \`timeout\` is over) it gives one event to the command \`deliver_to\`, so that any handler may deliver it, with its own settings. A host's events are those
of its own client and of the clients that have it as origin: its guests.

A single event is handed on unchanged, byte for byte. Several become an event of the host's client with a check named \`digest\`: the worst state, \`resolve\` when all are resolutions, and an output that lists the clients by state and check, with counts and since when; \`check.digest\` has them one by one.
Of several events about the same client and check the last one counts.

Nothing is lost with a process: what waits is on disk until it was delivered, and the lock ends with the process that has it, so that the next event's process takes over what a killed one left, or what could not be delivered. After a process that was killed while delivering, events may be delivered twice.

It is for messages to people. Services that open and close incidents (PagerDuty) want each event by itself.`,
  settings,
  timeoutSeconds: 25,
  sample: { deliver_to: 'handler-mail', window: 5 },
  sampleHandler: { timeout: 30 },
  relations: [
    ({ window, timeout }) =>
      2 * window > timeout ? ['window must be at most half of timeout: the other half is for delivering'] : [],
    ({ timeout }) =>
      timeout * 1000 <= shortestDeliveryMs + reserveMs
        ? [`timeout must be more than ${(shortestDeliveryMs + reserveMs) / 1000} s, which delivering may take`]
        : [],
  ],
  handle(event, asked, context) {
    const host = event.origin ?? event.client
    return {
      preview: `collect events of ${host} until none has come for ${asked.window} s, then run: ${asked.deliver_to}`,
      run: () => new Collector(host, asked, context).run(event),
    }
  },
})

function commandRule(command: string): string | undefined {
  // Of blanks the shell would run nothing, with success, and the events were lost. The longest argument of a program is 128 KiB.
  if (command.trim() === '' || command.includes('\0') || Buffer.byteLength(command) > longestCommandBytes)
    return `must be a command of at most ${longestCommandBytes} bytes, without null characters`
  return /pagerduty/i.test(command)
    ? 'must not lead to PagerDuty: a message about several events would open and close the wrong incidents'
    : undefined
}

/** Delivers events of one host, its own and those that other processes left. */
class Collector {
  readonly #host: string
  readonly #settings: Settings
  readonly #context: HandlerContext
  readonly #spool: EventSpool
  readonly #sent: string[] = []

  constructor(host: string, asked: Settings, context: HandlerContext) {
    this.#host = host
    this.#settings = asked
    this.#context = context
    const directory = stateDirectory(context.variables, asked.state_dir, 'state_dir')
    this.#spool = new EventSpool(
      join(directory, 'digest', safeName(asked.deliver_to), safeName(host)),
      asked.max_events,
    )
  }

  async run(event: SensuEvent): Promise<string> {
    const { now, timeLeftMs } = this.#context
    const kept = this.#spool.add(event.json, now())
    while (this.#spool.size > 0) {
      if (timeLeftMs() < shortestDeliveryMs + reserveMs) {
        throw new Error(
          `events of ${this.#host} wait for the next one of that host: no time left to deliver them, allow more with the setting timeout`,
        )
      }
      const unlock = tryLock(this.#spool.lockFile)
      // Whoever has the lock looks again after giving it up, and so finds what was added before.
      if (unlock === undefined) break
      try {
        await this.#collect()
      } finally {
        unlock()
      }
    }
    if (this.#sent.length > 0) return this.#sent.join('; ')
    return kept === 'kept'
      ? 'another process collects it for its message'
      : 'another process counts it in its message: too many events wait to keep it'
  }

  async #collect(): Promise<void> {
    const { stage } = this.#context
    stage(`collecting events of ${this.#host}`)
    await this.#untilQuiet()
    const waiting = this.#spool.read()
    const input = this.#message(waiting)
    if (input !== undefined) this.#sent.push(await this.#deliver(input, waiting))
    this.#spool.remove(waiting)
  }

  /** Waits until nothing has come for the window, at most half of the time that is left: the other half is for delivering. */
  async #untilQuiet(): Promise<void> {
    const { timeLeftMs, signal } = this.#context
    const leftAtEndMs = timeLeftMs() / 2
    let seen = -1
    while (this.#spool.size !== seen && timeLeftMs() > leftAtEndMs) {
      seen = this.#spool.size
      await pause(Math.min(this.#settings.window * 1000, timeLeftMs() - leftAtEndMs), undefined, { signal })
    }
  }

  /** What the command gets. Undefined when nothing waits. */
  #message({ events, countedOnly }: Waiting): string | undefined {
    const [only] = events
    if (only === undefined && countedOnly === 0) return undefined
    if (only !== undefined && events.length === 1 && countedOnly === 0) return only.json
    const { now } = this.#context
    const { max_lines: mostLines } = this.#settings
    const read = events.flatMap(({ json }) => readable(json) ?? [])
    const more = countedOnly + events.length - read.length
    return JSON.stringify(
      digestEvent({ host: this.#host, events: read, more, mostLines, nowMs: now(), id: randomUUID() }),
    )
  }

  async #deliver(input: string, { events, countedOnly }: Waiting): Promise<string> {
    const { stage, timeLeftMs, signal, variables } = this.#context
    const command = this.#settings.deliver_to
    const shown = printable(command, 200)
    const count = events.length + countedOnly
    stage(`delivering ${count} events by ${shown}`)
    const program = process.argv[1]
    const beside = program === undefined ? [] : [dirname(realpathSync(program))]
    const spawner = new Spawner({
      limit: 1,
      maxOutputBytes: 10_000,
      env: { ...variables, PATH: [...beside, variables['PATH'] ?? ''].join(':') },
    })
    try {
      const timeoutSeconds = Math.max(0.1, (timeLeftMs() - reserveMs) / 1000)
      const { output, status } = await spawner.run({ command, stdin: input, timeoutSeconds, signal })
      const said = printable(output.toString(), 500)
      if (status !== 0) {
        throw new Error(
          `${shown} ended with ${status}: ${said}; ${count} ${count === 1 ? 'event waits' : 'events wait'} for the next one of ${this.#host}`,
        )
      }
      return `${count} ${count === 1 ? 'event' : 'events in one message'} given to ${shown}: ${said || 'it said nothing'}`
    } finally {
      spawner.close()
    }
  }
}

/** A file that is no event was put there by somebody else, or a disk lost it: it is counted. */
function readable(json: string): SensuEvent | undefined {
  try {
    return readEvent(json)
  } catch {
    return undefined
  }
}
