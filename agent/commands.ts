import { isUtf8 } from 'node:buffer'
import { encodeJson } from '../sensu/json.js'
import { isTruthy, toNumber } from '../sensu/json-value.js'
import type { Spawner } from '../sensu/spawn.js'
import type { Json, JsonObject } from '../sensu/types.js'
import type { InProcessCall, InProcessChecks } from './in-process.js'
import type { Execution } from './metrics.js'
import type { Slots } from './slots.js'

/** What a command came to. */
export interface Outcome {
  /** A Buffer when it is not valid UTF-8. */
  output: string | Buffer
  status: number
}

/** What one guest came to. `last`: it is gone, and nothing will follow. */
export interface GuestOutcome extends Outcome {
  source: string
  last?: true
}

/** What a check's command came to; a check of ours may bring one outcome per guest with it. */
export interface CheckOutcome extends Outcome {
  guests: GuestOutcome[]
}

export interface CommandRunnerOptions {
  slots: Slots
  spawner: Spawner
  /** Undefined when switched off. */
  inProcess: InProcessChecks | undefined
  /** Told of every command that was run. */
  onExecuted?(execution: Execution): void
}

/** Runs the commands of checks and hooks, as processes or inside this one, a limited number at once. */
export class CommandRunner {
  readonly #options: CommandRunnerOptions

  constructor(options: CommandRunnerOptions) {
    this.#options = options
  }

  /** Runs a command as soon as a slot is free, as `execute` does. */
  run(definition: JsonObject, input: JsonObject): Promise<CheckOutcome> {
    return this.#options.slots.run(() => this.execute(definition, input))
  }

  /** Calls `work`, which is to execute a command, when a slot is free. Thousands may wait: until then nothing but the function is kept. */
  whenFree(work: () => Promise<CheckOutcome>): void {
    this.#options.slots.start(work)
  }

  /**
   * Runs `definition.command` now, with its `timeout` (seconds; none when absent, null, false or 0); with a true `stdin` it reads `input`. Never
   * rejects: what cannot be run has the output `Unexpected error: …` and status 3 (Sensu 1.9).
   */
  async execute(definition: JsonObject, input: JsonObject): Promise<CheckOutcome> {
    const call = this.inProcessCall(definition)
    const startedMs = performance.now()
    const outcome = await this.#execute(definition, input, call)
    const { status } = outcome
    const seconds = (performance.now() - startedMs) / 1000
    this.#options.onExecuted?.({
      ...{ kind: call ? 'in_process' : 'process', status, seconds },
      failure: failureOf(outcome),
    })
    return outcome
  }

  #execute(definition: JsonObject, input: JsonObject, call: InProcessCall | undefined): Promise<CheckOutcome> {
    const { inProcess } = this.#options
    const { command, timeout, stdin } = definition
    if (inProcess && call) return inProcess.run(call, timeoutOf(definition) ?? 0, nameOf(definition))
    return this.#spawn(command, timeout, isTruthy(stdin) ? encodeJson(input) : undefined)
  }

  /** How a command without tokens runs inside this process; undefined when it needs one of its own. */
  inProcessCall(definition: JsonObject): InProcessCall | undefined {
    const { command, stdin } = definition
    const plain = !isTruthy(stdin) && typeof command === 'string' && timeoutOf(definition) !== undefined
    return plain ? this.#options.inProcess?.resolve(command) : undefined
  }

  async #spawn(command: Json | undefined, timeoutSeconds: Json | undefined, stdin?: Buffer): Promise<CheckOutcome> {
    const request = { command, timeoutSeconds, ...(stdin && { stdin }) }
    const { output, status } = await this.#options.spawner.run(request)
    return { output: isUtf8(output) ? output.toString() : output, status, guests: [] }
  }
}

/** In seconds, 0 for none; undefined when it is no number, or negative. */
function timeoutOf({ timeout }: JsonObject): number | undefined {
  const seconds = isTruthy(timeout) ? toNumber(timeout) : 0
  return seconds !== undefined && seconds < 0 ? undefined : seconds
}

/** Hooks have none. */
function nameOf({ name }: JsonObject): string | undefined {
  return typeof name === 'string' ? name : undefined
}

/** By the texts that the contract fixes. */
function failureOf({ output, status }: Outcome): Execution['failure'] {
  if (status === 2 && output === 'Execution timed out') return 'timeout'
  return status === 3 && output.toString().startsWith('Unexpected error: ') ? 'not_started' : undefined
}
