/** One command that was run. */
export interface Execution {
  kind: 'process' | 'in_process'
  status: number
  seconds: number
  failure: 'timeout' | 'not_started' | undefined
}

/** What is asked at the moment the metrics are read. */
export interface Readings {
  version: string
  connected: boolean
  inFlight: number
  queued: number
  resultsWaiting: number
  resultsDropped: number
  spoolBytes: number | undefined
  loopLagSeconds: number
}

type Labels = Readonly<Record<string, string>>

/** Upper ends of the durations' buckets, seconds. */
const bucketEnds = [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60]
const statusNames = ['ok', 'warning', 'critical']

interface Durations {
  /** How many were at most so long, by bucket. */
  buckets: number[]
  count: number
  sum: number
}

/** Counts what the agent does. Everything is bounded: labels come from fixed sets. */
export class Metrics {
  readonly #executions = new Map<string, number>()
  readonly #failures = new Map<string, number>()
  readonly #durations = new Map<string, Durations>()
  readonly #libvirtCalls = new Map<string, number>()
  readonly #libvirtTimes = new Map<string, { count: number; sum: number }>()
  #results = 0
  #reconnects = 0

  executed({ kind, status, seconds, failure }: Execution): void {
    increment(this.#executions, labelText({ kind, status: statusNames[status] ?? 'unknown' }))
    if (failure) increment(this.#failures, labelText({ kind, reason: failure }))
    const durations = this.#durations.get(kind) ?? { buckets: bucketEnds.map(() => 0), count: 0, sum: 0 }
    this.#durations.set(kind, durations)
    durations.count++
    durations.sum += seconds
    for (const [index, end] of bucketEnds.entries()) {
      if (seconds <= end) durations.buckets[index] = (durations.buckets[index] ?? 0) + 1
    }
  }

  libvirtCalled(procedure: string, milliseconds: number, outcome: string): void {
    increment(this.#libvirtCalls, labelText({ procedure, outcome }))
    const key = labelText({ procedure })
    const times = this.#libvirtTimes.get(key) ?? { count: 0, sum: 0 }
    this.#libvirtTimes.set(key, times)
    times.count++
    times.sum += milliseconds / 1000
  }

  published(): void {
    this.#results++
  }

  reconnected(): void {
    this.#reconnects++
  }

  /** Everything in Prometheus' text format, version 0.0.4. */
  text(readings: Readings): string {
    const { rss, heapUsed } = process.memoryUsage()
    const { user, system } = process.cpuUsage()
    const families = [
      family('info', 'gauge', 'The agent, by the Sensu version it is compatible with.', [
        [labelText({ version: readings.version }), 1],
      ]),
      family('checks_total', 'counter', 'Commands of checks and hooks that were run.', [...this.#executions]),
      family('check_failures_total', 'counter', 'Commands that timed out or did not start.', [...this.#failures]),
      ...this.#durationFamily(),
      family('checks_in_flight', 'gauge', 'Commands that run now.', readings.inFlight),
      family('checks_queued', 'gauge', 'Commands that wait for a free slot.', readings.queued),
      family('results_published_total', 'counter', 'Check results taken over for delivery.', this.#results),
      family('results_waiting', 'gauge', 'Check results that are not delivered yet.', readings.resultsWaiting),
      family('results_dropped_total', 'counter', 'Check results given up.', readings.resultsDropped),
      family('spool_bytes', 'gauge', 'Size of the spool on disk.', readings.spoolBytes ?? []),
      family('connected', 'gauge', 'Whether the destination of results is connected.', Number(readings.connected)),
      family('reconnects_total', 'counter', 'Connections to the transport after a loss.', this.#reconnects),
      family(
        'event_loop_lag_seconds',
        'gauge',
        'Longest delay of a timer in the last minute.',
        readings.loopLagSeconds,
      ),
      family('libvirt_calls_total', 'counter', 'Calls to libvirt, by how they ended.', [...this.#libvirtCalls]),
      ...this.#libvirtFamily(),
      family('resident_memory_bytes', 'gauge', 'Resident memory.', rss),
      family('heap_bytes', 'gauge', "JavaScript's share of it.", heapUsed),
      family('cpu_seconds_total', 'counter', 'Processor time used.', (user + system) / 1e6),
      family('uptime_seconds', 'gauge', 'Time since the start.', process.uptime()),
    ]
    return families.join('')
  }

  #durationFamily(): string[] {
    const samples = [...this.#durations].flatMap(([kind, { buckets, count, sum }]): Sample[] => [
      ...bucketEnds.map((end, index): Sample => [labelText({ kind, le: String(end) }), buckets[index] ?? 0, '_bucket']),
      [labelText({ kind, le: '+Inf' }), count, '_bucket'],
      [labelText({ kind }), sum, '_sum'],
      [labelText({ kind }), count, '_count'],
    ])
    return [family('check_duration_seconds', 'histogram', 'Time commands took, without waiting for a slot.', samples)]
  }

  #libvirtFamily(): string[] {
    const samples = [...this.#libvirtTimes].flatMap(([labels, { count, sum }]): Sample[] => [
      [labels, sum, '_sum'],
      [labels, count, '_count'],
    ])
    return [family('libvirt_call_seconds', 'summary', 'Time of calls to libvirt, waiting for it included.', samples)]
  }
}

type Sample = [labels: string, value: number, suffix?: string]

function increment(counters: Map<string, number>, key: string): void {
  counters.set(key, (counters.get(key) ?? 0) + 1)
}

/** Values come from this program only: names of procedures, statuses, versions. */
function labelText(labels: Labels): string {
  return `{${Object.entries(labels)
    .map(([name, value]) => `${name}="${value}"`)
    .join(',')}}`
}

/** Nothing when there are no samples. */
function family(name: string, type: string, help: string, samples: readonly Sample[] | number): string {
  const list: readonly Sample[] = typeof samples === 'number' ? [['', samples]] : samples
  if (list.length === 0) return ''
  const full = `sensu_kvm_agent_${name}`
  const lines = list.map(([labels, value, suffix = '']) => `${full}${suffix}${labels} ${value}\n`)
  return `# HELP ${full} ${help}\n# TYPE ${full} ${type}\n${lines.join('')}`
}
