import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'

/** One line of the benchmark's table: our way and what a user would run instead, measured in the same run. */
export interface Row {
  /** What is measured, e.g. `domain state, one guest`. */
  subject: string
  /** Unit of both figures: milliseconds per operation, operations per second, or memory. */
  unit: 'ms' | '/s' | 'MiB'
  /** Our median (ms) or rate (/s). */
  ours: number
  /** What it is compared with, e.g. `virsh domstate (process)`. */
  peer: string
  /** The peer's median or rate; undefined when there is no such thing to run here. */
  theirs: number | undefined
  /** Longest time our event loop was held up while we measured, ms; undefined where we are a process of our own. */
  loopLagMs: number | undefined
  /** What the project promises, as a sentence; checked by eye, never by a test. */
  target?: string
  /** Anything needed to read the figures. */
  note?: string
}

/** The value below which the given share (0–1) of the samples lies. */
export function quantile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

/** The median of the samples. */
export function median(samples: readonly number[]): number {
  return quantile(samples, 0.5)
}

/** Milliseconds that one call takes. */
export async function timed(call: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await call()
  return performance.now() - start
}

/** Runs a call `count` times, one after the other; milliseconds each. */
export async function sample(count: number, call: () => Promise<unknown>): Promise<number[]> {
  const samples: number[] = []
  for (let i = 0; i < count; i++) samples.push(await timed(call))
  return samples
}

/** Runs two calls in turn, A B B A A B …, so that a machine whose speed drifts treats both alike. Milliseconds each. */
export async function samplePairs(
  count: number,
  ours: () => Promise<unknown>,
  theirs: () => Promise<unknown>,
): Promise<{ ours: number[]; theirs: number[] }> {
  await ours()
  await theirs()
  const result: { ours: number[]; theirs: number[] } = { ours: [], theirs: [] }
  for (let i = 0; i < count; i++) {
    if (i % 2 === 0) result.ours.push(await timed(ours))
    result.theirs.push(await timed(theirs))
    if (i % 2 === 1) result.ours.push(await timed(ours))
  }
  return result
}

/** CPU time of this process's children that have ended (Linux counts in hundredths of a second: for many of them together). */
export function childrenCpuMs(): number {
  const fields = readFileSync('/proc/self/stat', 'latin1')
    .replace(/^.*\) /, '')
    .split(' ')
  return (Number(fields[13]) + Number(fields[14])) * 10
}

/** Runs a program to its end, its output read and thrown away. Rejects when it does not exit with one of the given statuses. */
export async function runProcess(
  command: string,
  args: readonly string[],
  statuses: readonly number[] = [0],
): Promise<void> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  child.stdout.resume()
  let stderr = ''
  child.stderr.on('data', chunk => {
    if (stderr.length < 4096) stderr += chunk
  })
  const [status] = await once(child, 'close')
  if (!statuses.includes(status)) throw new Error(`${command} ${args.join(' ')} ended with ${status}: ${stderr.trim()}`)
}

/** Watches how long the event loop is held up; the function returned ends that and tells the longest time, ms. */
export function watchLoop(): () => number {
  const resolutionMs = 1
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs })
  histogram.enable()
  return () => {
    histogram.disable()
    // the histogram counts the timer's own interval as delay
    return Math.max(0, histogram.max / 1e6 - resolutionMs)
  }
}
