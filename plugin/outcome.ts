import { overrideLimits } from './limits.js'
import { crossedLimit, type Range, violates } from './range.js'
import type { Status } from './status.js'
import { formatNumber, formatQuantity } from './text.js'

/** One judgement about one object. */
export interface Finding {
  readonly status: Status
  /** The guest concerned; absent for the host. */
  readonly guest?: string | undefined
  /** The device of the guest, or of the host, concerned. */
  readonly device?: string | undefined
  /** What is the matter, with the number and the limit it crossed; without the names above, which are put in front. */
  readonly message: string
}

/** Bytes, seconds, percent, a counter that only grows, or a plain number. */
export type Unit = 'B' | 's' | '%' | 'c' | ''

/** One number. */
export interface Metric {
  /** In snake case, without unit and without the check's name: `used`, `read_latency`. */
  readonly name: string
  /** What the number belongs to, outermost first: `{ guest: 'web01', disk: 'vda' }`. */
  readonly labels?: Readonly<Record<string, string>> | undefined
  /** Undefined when it could not be determined. */
  readonly value: number | bigint | undefined
  readonly unit?: Unit | undefined
  readonly warning?: Range | undefined
  readonly critical?: Range | undefined
  readonly min?: number | undefined
  readonly max?: number | undefined
  /** One sentence for formats that carry one. */
  readonly help?: string | undefined
}

/** What `evaluate` returns. */
export interface Outcome {
  /** The text after `NAME OK: `, and in another plugin's line after any status; made from the findings when absent. */
  readonly summary?: string | undefined
  readonly findings: readonly Finding[]
  readonly metrics: readonly Metric[]
}

/** A number to judge: the metric, and words for the message. */
export interface Judgement extends Metric {
  readonly guest?: string | undefined
  readonly device?: string | undefined
  /** The metric's label for the device: `disk`, `interface`, `cpu`. */
  readonly deviceLabel?: string | undefined
  /** What the number is, in words: `memory in use`. */
  readonly what: string
  /** What to add to the message: `of 4 GiB`. */
  readonly note?: string | undefined
}

/** Something whose limits may be overridden by its own metadata. */
export interface Limited {
  readonly name: string
  /** Limits of this check by option name (`warning`, `read-latency-critical`), as the guest's metadata gives them. */
  readonly limits?: Readonly<Record<string, string>> | undefined
}

/** Collects findings and metrics; it is itself the {@link Outcome} that `evaluate` returns. */
export class Verdict implements Outcome {
  summary: string | undefined
  readonly findings: Finding[] = []
  readonly metrics: Metric[] = []
  #lastLabels:
    | {
        readonly guest: string | undefined
        readonly device: string | undefined
        readonly deviceLabel: string
        readonly labels: Readonly<Record<string, string>>
      }
    | undefined

  /** Records a finding. */
  add(finding: Finding): this {
    this.findings.push(finding)
    return this
  }

  /** Records a number that is not judged. */
  measure(metric: Metric): this {
    this.metrics.push(metric)
    return this
  }

  /**
   * Judges a number against its limits and records both the finding and the metric. A number that is undefined is recorded as undetermined and
   * not judged: whether that is UNKNOWN is the check's to say. Returns the status.
   */
  judge(judgement: Judgement): Status {
    const { guest, device, name, unit, min, max, help, value, warning, critical } = judgement
    const labels = this.#labelsOf(judgement)
    this.measure({ name, unit, min, max, help, labels, value, warning, critical })
    if (value === undefined) return 'OK'
    const crossed = crossedBy(Number(value), judgement)
    this.add(crossed === undefined ? new WithinLimits(judgement) : { ...crossed, guest, device })
    return crossed?.status ?? 'OK'
  }

  /** One object for numbers of one device in a row, so that a format makes their text once. */
  #labelsOf({ guest, device, deviceLabel = 'device', labels }: Judgement): Readonly<Record<string, string>> {
    const last = this.#lastLabels
    if (labels === undefined && last?.guest === guest && last?.device === device && last?.deviceLabel === deviceLabel)
      return last.labels
    const made = {
      ...(guest === undefined ? {} : { guest }),
      ...(device === undefined ? {} : { [deviceLabel]: device }),
      ...labels,
    }
    if (labels === undefined) this.#lastLabels = { guest, device, deviceLabel, labels: made }
    return made
  }

  /**
   * The options with the limits that the guest's own metadata sets instead. A limit there that is no range, or that this check does not have, is
   * an UNKNOWN finding of that guest; the others are unaffected.
   */
  limitsOf<T extends object>(options: T, guest: Limited): T {
    if (guest.limits === undefined) return options
    const { options: own, problems } = overrideLimits(options, guest.limits)
    for (const message of problems) this.add({ status: 'UNKNOWN', guest: guest.name, message })
    return own
  }
}

/** The limit a value crossed, in a status and words; undefined when it crossed none. */
function crossedBy(value: number, judgement: Judgement): Pick<Finding, 'status' | 'message'> | undefined {
  const { warning, critical, unit } = judgement
  const crossed = (status: Status, range: Range) => {
    const rounded = formatQuantity(value, unit)
    const limit = crossedLimit(range, value, unit)
    // 90.001 must not read as "90 % (critical above 90 %)".
    const quantity = limit.endsWith(` ${rounded}`) ? `${formatNumber(value)}${unit ?? ''}` : rounded
    return { status, message: `${inWords(judgement, quantity)} (${status.toLowerCase()} ${limit})` }
  }
  if (critical !== undefined && violates(critical, value)) return crossed('CRITICAL', critical)
  return warning !== undefined && violates(warning, value) ? crossed('WARNING', warning) : undefined
}

function inWords({ what, note }: Judgement, quantity: string): string {
  return note ? `${what} ${quantity} ${note}` : `${what} ${quantity}`
}

/** The finding of a number that crossed no limit: put in words when somebody asks for them, which for most of a thousand guests' numbers nobody does. */
class WithinLimits implements Finding {
  readonly status = 'OK'
  readonly guest: string | undefined
  readonly device: string | undefined
  readonly #judgement: Judgement

  constructor(judgement: Judgement) {
    this.guest = judgement.guest
    this.device = judgement.device
    this.#judgement = judgement
  }

  get message(): string {
    return inWords(this.#judgement, formatQuantity(Number(this.#judgement.value), this.#judgement.unit))
  }

  toJSON(): Finding {
    const { status, guest, device, message } = this
    return { status, guest, device, message }
  }
}
