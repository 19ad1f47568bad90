import { join } from 'node:path'
import type { GuestResult, sendResults } from './agent-socket.js'
import type { Check, Context } from './check.js'
import { type CommonValues, parseCommandLine, type Request, type Validate } from './command-line.js'
import { type GuestOptionValues, selectGuests, selectionFindings } from './guests.js'
import { keepKnown, readGone } from './known-guests.js'
import type { Selectable } from './objects.js'
import type { OptionTable, OptionValues } from './options.js'
import type { Finding, Outcome } from './outcome.js'
import { type Format, firstLine, formatFailure, formats, type Report, statusLine, statusOf } from './output.js'
import type { PendingReads } from './pending-reads.js'
import type { StateKeeper, StateStore } from './state.js'
import { type ExitStatus, exitStatusOf, worstFirst } from './status.js'
import { printable, safeName } from './text.js'

/** A check and what the build made of it: all that is needed to run it. */
export interface CheckProgram<Host> {
  readonly check: Check<Host>
  readonly validate: Validate
  /** What `--version` prints besides the name. */
  readonly version: string
  /** What `--help` prints. */
  readonly help: string
}

/** How a run reaches libvirt. `uri` is always given; the signal ends a connection attempt that takes too long. */
export interface OpenHostOptions {
  readonly uri: string
  readonly readOnly: boolean
  readonly timeoutSeconds: number
  readonly signal: AbortSignal
}

/** Everything outside that a run depends on. */
export interface Environment<Host> {
  openHost(options: OpenHostOptions): Promise<Host & { close(): Promise<void> }>
  readonly state: StateKeeper
  /** Where `--per-guest` keeps which guests there were, so that it can tell who is gone; it should outlive the process. Default: `state`. */
  readonly known?: StateKeeper
  /** Outlives the run in a process that does. */
  readonly pending: PendingReads
  /** The name of the guests' results, when the command line does not decide that. */
  readonly checkName?: string | undefined
  /** Milliseconds since 1970. */
  now(): number
  /** Ends the run early. */
  readonly signal?: AbortSignal | undefined
  /** The `host` of metric formats. */
  readonly hostname: string
  /** Environment variables; LIBVIRT_DEFAULT_URI and SENSU_KVM_ROOT are looked at. */
  readonly variables: Readonly<Record<string, string | undefined>>
  /** Hands the results of `--per-guest` over; without it they are only returned, for the agent to publish. */
  readonly deliver?: typeof sendResults | undefined
}

/** The libvirt that a run asks. */
export function libvirtUri({ uri }: Pick<CommonValues, 'uri'>, variables: Environment<never>['variables']): string {
  return uri ?? (variables['LIBVIRT_DEFAULT_URI'] || 'qemu:///system')
}

/** What a run prints and exits with, and with `--per-guest` each guest's own result. */
export interface RunResult {
  readonly output: string
  readonly status: ExitStatus
  readonly guests?: readonly GuestResult[]
}

/** Runs a check with a command line (without the program's name). Never throws: whatever goes wrong is UNKNOWN and one line. */
export function runCheck<Host>(
  program: CheckProgram<Host>,
  argv: readonly string[],
  environment: Environment<Host>,
): Promise<RunResult> {
  return prepareCheck(program, argv)(environment)
}

/** Reads the command line once, for any number of runs. */
export function prepareCheck<Host>(
  { check, validate, version, help }: CheckProgram<Host>,
  argv: readonly string[],
): (environment: Environment<Host>) => Promise<RunResult> {
  const always = (result: RunResult) => async () => result
  try {
    const request = parseCommandLine(check, validate, argv)
    if (request.kind === 'help') return always({ output: help, status: 3 })
    if (request.kind === 'version') return always({ output: `${check.name} ${version} (sensu-kvm)\n`, status: 3 })
    if (request.kind === 'problems') return always({ output: problemLines(check, request.problems), status: 3 })
    return environment => runRequest(check, request, environment)
  } catch (error) {
    return always(failure(check, error))
  }
}

async function runRequest<Host>(
  check: Check<Host>,
  request: RunRequest,
  environment: Environment<Host>,
): Promise<RunResult> {
  try {
    return await new Run(check, request, environment).result()
  } catch (error) {
    return failure(check, error, request.common.format, environment.now(), request.options)
  }
}

/** The result of a run that failed: UNKNOWN and one line, without a stack trace. */
export function failure(
  check: Named,
  error: unknown,
  format: Format = 'nagios',
  timeMs = 0,
  options?: OptionValues<OptionTable>,
): RunResult {
  const message = error instanceof Error ? error.message || error.name : String(error)
  // What a programmer got wrong says so, or an admin looks for the fault in the host.
  const internal = error instanceof TypeError || error instanceof ReferenceError || error instanceof RangeError
  const text = internal ? `internal error: ${message}` : message
  return { output: formatFailure(format, { name: check.name, line: lineOf(check, options) }, text, timeMs), status: 3 }
}

type Named = Pick<Check<never>, 'name' | 'rubyLine'>

function lineOf(check: Named, options?: OptionValues<OptionTable>): Report['line'] {
  return check.rubyLine && ((status, text) => check.rubyLine?.(status, text, options) ?? text)
}

function problemLines(check: Named, problems: readonly string[]): string {
  const [first = '', ...others] = problems
  const line = lineOf(check) ?? ((status, text) => statusLine(check.name, status, text))
  return [line('UNKNOWN', printable(first)), ...others.map(problem => printable(problem)), ''].join('\n')
}

type RunRequest = Extract<Request, { kind: 'run' }>

/** One run: its stage, its deadline, and the guests it looked for in vain. */
class Run<Host> {
  readonly #check: Check<Host>
  readonly #common: CommonValues
  readonly #request: RunRequest
  readonly #environment: Environment<Host>
  readonly #uri: string
  /** How long the run may take. */
  readonly #seconds: number
  readonly #abort = new AbortController()
  readonly #selectionFindings: Finding[] = []
  readonly #startedMs = performance.now()
  readonly #selected = new Set<string>()
  #stage = 'starting'

  constructor(check: Check<Host>, request: RunRequest, environment: Environment<Host>) {
    this.#check = check
    this.#request = request
    this.#common = request.common
    this.#environment = environment
    this.#seconds = request.common.timeout + (check.takesSeconds?.(request.options) ?? 0)
    this.#uri = check.local ? '' : libvirtUri(request.common, environment.variables)
  }

  /** Runs until the work is done, the time is over or the environment's signal says stop, whichever is first. */
  async result(): Promise<RunResult> {
    const { promise, stop } = this.#deadline()
    const work = this.#work()
    work.catch(() => undefined) // What is still going on after the deadline may fail unheard.
    try {
      return await Promise.race([work, promise])
    } finally {
      stop()
    }
  }

  /** A promise that rejects at the deadline or at the environment's signal, which also aborts all work. */
  #deadline(): { promise: Promise<never>; stop(): void } {
    const seconds = this.#seconds
    const outer = this.#environment.signal
    const { promise, reject } = withReject()
    const end = (text: string) => {
      reject(new Error(text))
      this.#abort.abort(new Error(text))
    }
    const onTimeout = () =>
      end(`no answer within ${seconds} s while ${this.#stage}: look at what hangs there, or allow more with --timeout`)
    const onStop = () => end(`stopped while ${this.#stage}`)
    const timer = setTimeout(onTimeout, Math.min(seconds * 1000, 2 ** 31 - 1))
    if (outer?.aborted) onStop()
    outer?.addEventListener('abort', onStop, { once: true })
    return {
      promise,
      stop: () => {
        clearTimeout(timer)
        outer?.removeEventListener('abort', onStop)
      },
    }
  }

  async #work(): Promise<RunResult> {
    const outcome = await this.#outcome()
    const report: Report = {
      name: this.#check.name,
      outcome: { ...outcome, findings: [...outcome.findings, ...this.#selectionFindings] },
      scheme: this.#common.scheme ?? this.#environment.hostname,
      timeMs: this.#environment.now(),
      verbose: this.#common.verbose,
      line: lineOf(this.#check, this.#request.options),
    }
    if (this.#request.options['perGuest'] === true) return this.#perGuest(report)
    return { output: formats[this.#common.format](report), status: exitStatusOf[statusOf(report.outcome)] }
  }

  async #outcome(): Promise<Outcome> {
    const { signal } = this.#abort
    let closing: Promise<void> | undefined
    let host: (Host & { close(): Promise<void> }) | undefined
    // Closing ends whatever the check still waits for. Once only: a host that is shared counts its users.
    const close = async () => {
      // A connection that cannot be closed properly must not change the result.
      closing ??= host?.close().catch(() => undefined)
      return closing
    }
    signal.addEventListener('abort', close, { once: true })
    const open = async () => {
      host = await this.#openHost()
      signal.throwIfAborted()
      this.#stage = `asking ${this.#uri}`
      return host
    }
    try {
      return await this.#check.run(open, this.#request.options, this.#context())
    } finally {
      signal.removeEventListener('abort', close)
      await close()
    }
  }

  #openHost(): Promise<Host & { close(): Promise<void> }> {
    this.#stage = `connecting to ${this.#uri}`
    return this.#environment.openHost({
      uri: this.#uri,
      readOnly: this.#check.readWrite === false,
      timeoutSeconds: this.#common.timeout,
      signal: this.#abort.signal,
    })
  }

  #context(): Context {
    const { state, now, variables, pending } = this.#environment
    return {
      signal: this.#abort.signal,
      uri: this.#uri,
      stage: name => {
        this.#stage = name
      },
      state: state.open({
        check: this.#check.name,
        uri: this.#uri,
        options: this.#request.own,
        directory: this.#common.stateDir,
      }),
      now,
      variables,
      pending,
      path: absolute => join(variables['SENSU_KVM_ROOT'] || '/', absolute),
      timeLeftMs: () => this.#seconds * 1000 - (performance.now() - this.#startedMs),
      selectGuests: guests => this.#selectGuests(guests),
    }
  }

  #selectGuests<T extends Selectable>(guests: readonly T[]): T[] {
    // Only checks that declare `guests` call this; the table they share gives these values.
    const options = this.#request.options as unknown as GuestOptionValues
    const selection = selectGuests(guests, options)
    this.#selectionFindings.push(...selectionFindings(selection, options, this.#uri))
    for (const { name } of selection.selected) this.#selected.add(name)
    return selection.selected
  }

  /** The guests' states belong to the guests: the run itself is as bad as its findings about the host, or the hand-over. */
  async #perGuest(report: Report): Promise<RunResult> {
    const present = guestReports(report).map(([guest, own]) => guestResult(guest, own, this.#common.format))
    const { results: gone, problem, remember } = await this.#gone(report)
    const guests = [...present, ...gone]
    if (this.#environment.deliver !== undefined && guests.length > 0) {
      this.#stage = `handing results to the agent at ${this.#common.agentSocket}`
      const name = this.#common.checkName ?? this.#check.name
      const results = guests.map(({ source, output, status }) => ({ name, source, output, status }))
      await this.#environment.deliver(results, this.#common.agentSocket, this.#abort.signal)
    }
    const trouble = problem ?? (await remember())
    const findings = report.outcome.findings.filter(({ guest }) => guest === undefined)
    const host = { ...report.outcome, findings: trouble === undefined ? findings : [...findings, trouble] }
    const status = statusOf(host)
    const own = status === 'OK' ? '' : `${firstLine({ name: '', outcome: host }).replace(/^ \w+: /, '')}; `
    const absent = gone.length === 0 ? '' : `; ${gone.length} gone (${someSources(gone)})`
    return {
      output: `${statusLine(report.name, status, own + guestCounts(present) + absent)}\n`,
      status: exitStatusOf[status],
      guests,
    }
  }

  /** Results of guests that earlier runs knew and that are gone, and how to keep what the next run is to know. Never rejects. */
  async #gone(report: Report): Promise<GoneGuests> {
    const asked = (this.#request.options as unknown as GuestOptionValues).gone
    const nothing = { results: [], problem: undefined, remember: async () => undefined }
    if (asked === 'ignore') return nothing
    this.#stage = 'finding out which guests are gone'
    const present = new Set([...this.#selected, ...guestReports(report).map(([guest]) => guest)])
    const store = this.#knownStore()
    try {
      const names = await readGone(store, present)
      const remember = async () => {
        if (this.#abort.signal.aborted) return undefined
        const known = asked === 'critical' ? [...present, ...names] : [...present]
        return keepKnown(store, known).then(() => undefined, cannotTellGone)
      }
      const results = names.map(name => this.#goneResult(name, asked, report))
      return { results, problem: undefined, remember }
    } catch (error) {
      return { ...nothing, problem: cannotTellGone(error) }
    }
  }

  /**
   * By the name that the guests' results have, since that is where a result is left behind. Where it is not known, different
   * uses of a check must not take each other's guests for gone: by the options.
   */
  #knownStore(): StateStore {
    const { known, state, checkName = this.#common.checkName } = this.#environment
    const { gone: _, ...options } = this.#request.own
    return (known ?? state).open({
      check: `${this.#check.name}-guests`,
      uri: this.#uri,
      options: checkName === undefined ? options : { checkName },
      directory: this.#common.stateDir,
    })
  }

  #goneResult(guest: string, asked: 'resolve' | 'critical', report: Report): GuestResult {
    const where = `no longer on ${this.#uri}: undefined or migrated away, or not selected any more`
    const finding: Finding =
      asked === 'resolve'
        ? { status: 'OK', guest, message: where }
        : { status: 'CRITICAL', guest, message: `${where}; --gone resolve ends this` }
    const result = guestResult(guest, { ...report, outcome: { findings: [finding], metrics: [] } }, this.#common.format)
    return asked === 'resolve' ? { ...result, last: true } : result
  }
}

interface GoneGuests {
  readonly results: readonly GuestResult[]
  /** What kept the run from telling who is gone. */
  readonly problem: Finding | undefined
  /** To be called when the results were handed over. */
  remember(): Promise<Finding | undefined>
}

function cannotTellGone(error: unknown): Finding {
  const reason = error instanceof Error ? error.message : String(error)
  return { status: 'WARNING', message: `cannot tell which guests are gone: ${reason}` }
}

/** One report per guest that has a finding or a metric, with only its own. */
function guestReports(report: Report): [guest: string, report: Report][] {
  const { findings, metrics } = report.outcome
  const names = new Set([...findings.map(({ guest }) => guest), ...metrics.map(({ labels }) => labels?.['guest'])])
  return [...names]
    .filter(name => name !== undefined)
    .map(name => {
      const outcome = {
        findings: findings.filter(({ guest }) => guest === name),
        metrics: metrics.filter(({ labels }) => labels?.['guest'] === name),
      }
      return [name, { ...report, outcome }]
    })
}

function guestResult(guest: string, report: Report, format: Format): GuestResult {
  return { source: safeName(guest), output: formats[format](report), status: exitStatusOf[statusOf(report.outcome)] }
}

/** `8 guests: 7 OK, 1 CRITICAL (web01)`. */
function guestCounts(guests: readonly GuestResult[]): string {
  const counts = worstFirst.toReversed().flatMap(status => {
    const those = guests.filter(guest => guest.status === exitStatusOf[status])
    const named = status === 'OK' ? '' : ` (${someSources(those)})`
    return those.length === 0 ? [] : [`${those.length} ${status}${named}`]
  })
  return `${guests.length} ${guests.length === 1 ? 'guest' : 'guests'}${counts.length === 0 ? '' : `: ${counts.join(', ')}`}`
}

function someSources(guests: readonly GuestResult[]): string {
  const some = guests.slice(0, 3).map(({ source }) => source)
  return `${some.join(', ')}${guests.length > 3 ? ', …' : ''}`
}

function withReject(): { promise: Promise<never>; reject(error: Error): void } {
  let reject: (error: Error) => void = () => undefined
  const promise = new Promise<never>((_, fail) => {
    reject = fail
  })
  promise.catch(() => undefined)
  return { promise, reject: error => reject(error) }
}
