import { type GuestOptionValues, guestOptions } from './guests.js'
import type { Selectable } from './objects.js'
import { type OptionTable, type OptionValues, type RawValues, readOptions } from './options.js'
import type { Outcome } from './outcome.js'
import type { Format } from './output.js'
import type { PendingReads } from './pending-reads.js'
import type { StateStore } from './state.js'
import type { Status } from './status.js'

/** What a check's `collect` gets besides the host and its options. */
export interface Context {
  /** Aborted when the run's time is over or the agent stops; hand it to everything that waits. */
  readonly signal: AbortSignal
  /** Where libvirt was reached, for messages; empty for a check of this machine alone. */
  readonly uri: string
  /** Names what is being done, for the message of a run that ends by its timeout: `reading block statistics`. */
  stage(name: string): void
  /** What this check with these options kept from its last run. */
  readonly state: StateStore
  /** Environment variables. */
  readonly variables: Readonly<Record<string, string | undefined>>
  /** For reads of this machine that may hang for good. */
  readonly pending: PendingReads
  /** Where a file of this machine is to be read, by its absolute path: there, or below $SENSU_KVM_ROOT, which tests set to a tree of their own. */
  path(absolute: string): string
  /** Milliseconds since 1970. */
  now(): number
  /** Milliseconds until the run ends by its timeout; a check that asks many leaves off before, and says whom it did not ask. */
  timeLeftMs(): number
  /**
   * The guests that the command line asks for. What it names and is not there becomes an UNKNOWN finding by itself, so that one wrong name does
   * not hide the others. Hand in every defined guest, not only the running ones.
   */
  selectGuests<T extends Selectable>(guests: readonly T[]): T[]
}

type Options<O extends OptionTable, G extends boolean> = OptionValues<O> &
  (G extends true ? GuestOptionValues : unknown)

/** What the author of a check writes; option types flow into both functions, the host's type comes from `collect`'s annotation. */
export interface CheckDefinition<Host, O extends OptionTable, G extends boolean, Sample> {
  /** The executable's name. */
  readonly name: string
  /** One sentence. */
  readonly summary: string
  /** More, in Markdown, for the documentation page. */
  readonly description?: string
  /** Arguments of the sample configuration besides the limits. */
  readonly sample?: string
  /** The check's own options; common ones are added. */
  readonly options: O
  /** Adds the options that select guests, and `--per-guest`. */
  readonly guests?: G
  /** The check needs what libvirt denies on its read-only socket (guest agent, monitor): always, or with some of its options. */
  readonly readWrite?: boolean | 'sometimes'
  /** What it prints unless --format says otherwise. Default: `nagios`; another one makes it a metric check in its sample configuration. */
  readonly format?: Format
  /** All input and output. Throwing means UNKNOWN, with the error's message as the one line. */
  collect(host: Host, options: Options<O, G>, context: Context): Promise<Sample>
  /** Judges what was collected: pure. */
  evaluate(sample: Sample, options: Options<O, G>): Outcome
}

/** What the author of a check of this machine writes: like {@link CheckDefinition}, but nothing is asked of libvirt and there is no host. */
export interface LocalCheckDefinition<O extends OptionTable, Sample>
  extends Omit<CheckDefinition<unknown, O, false, Sample>, 'guests' | 'readWrite' | 'collect'> {
  /** All input and output. Throwing means UNKNOWN, with the error's message as the one line. */
  collect(options: Options<O, false>, context: Context): Promise<Sample>
  /**
   * For a check that takes the place of the plugin of sensu-plugins with the same name: that plugin's line, made of the status and the outcome's
   * summary (whatever the status). It makes the command line that plugin's, too: the check's options win over common ones of the same name or
   * letter, and words are read as Ruby's OptionParser reads them. `NAME.rb` beside the executable leads to it.
   * `options` is undefined when the command line could not be read.
   */
  rubyLine?(status: Status, text: string, options: Options<O, false> | undefined): string
  /** Seconds that a run takes by the check's own options; `--timeout` counts on top of them. */
  takesSeconds?(options: Options<O, false>): number
}

/** A check without the types of its options and sample: what runs, lists and documents checks. */
export interface Check<Host> {
  readonly name: string
  readonly summary: string
  readonly description: string | undefined
  readonly sample: string | undefined
  /** The check's own options and, for a check of guests, those that select them. */
  readonly options: OptionTable
  readonly guests: boolean
  readonly readWrite: boolean | 'sometimes'
  /** What it prints unless --format says otherwise. */
  readonly format: Format
  /** Whether it looks at this machine alone: libvirt is not opened, and it has none of the options for that. */
  readonly local: boolean
  /** See {@link LocalCheckDefinition}. */
  rubyLine?(status: Status, text: string, options: OptionValues<OptionTable> | undefined): string
  /** See {@link LocalCheckDefinition}. */
  takesSeconds?(options: OptionValues<OptionTable>): number
  /** Collects and evaluates, with options that {@link readOptions} made from this check's table; opens libvirt only if it asks that. */
  run(open: () => Promise<Host>, options: OptionValues<OptionTable>, context: Context): Promise<Outcome>
}

/** A check as its tests use it. */
export interface DefinedCheck<Host, O extends OptionTable, G extends boolean, Sample> extends Check<Host> {
  collect(host: Host, options: Options<O, G>, context: Context): Promise<Sample>
  evaluate(sample: Sample, options: Options<O, G>): Outcome
  /** The options as a command line with these raw values gives them (keys in kebab case), defaults filled in; throws on a bad one. */
  parseOptions(raw?: RawValues): Options<O, G>
}

/** Declares a check. */
export function defineCheck<Host, const O extends OptionTable, Sample, const G extends boolean = false>(
  definition: CheckDefinition<Host, O, G, Sample>,
): DefinedCheck<Host, O, G, Sample> {
  const options: OptionTable = definition.guests ? { ...definition.options, ...guestOptions } : definition.options
  return {
    name: definition.name,
    summary: definition.summary,
    description: definition.description,
    sample: definition.sample,
    options,
    guests: definition.guests ?? false,
    readWrite: definition.readWrite ?? false,
    format: definition.format ?? 'nagios',
    local: false,
    collect: (host, values, context) => definition.collect(host, values, context),
    evaluate: (sample, values) => definition.evaluate(sample, values),
    async run(open, values, context) {
      // The one place where types meet again: `values` were made from `options`, which is the definition's table.
      const typed = values as Options<O, G>
      const sample = await definition.collect(await open(), typed, context)
      context.stage('judging')
      return definition.evaluate(sample, typed)
    },
    parseOptions(raw = {}) {
      const problems: string[] = []
      const values = readOptions(options, raw, problems)
      if (problems.length > 0) throw new Error(problems.join('; '))
      return values as Options<O, G>
    },
  }
}

/** Declares a check of this machine that needs no libvirt; its executable has none of libvirt's code, its `collect` no host. */
export function defineLocalCheck<const O extends OptionTable, Sample>(
  definition: LocalCheckDefinition<O, Sample>,
): DefinedCheck<unknown, O, false, Sample> {
  const check = defineCheck<unknown, O, Sample>({
    ...definition,
    collect: (_, options, context) => definition.collect(options, context),
  })
  const { rubyLine, takesSeconds } = definition
  const noHost = async () => undefined
  return {
    ...check,
    local: true,
    ...(rubyLine && { rubyLine: (status, text, options) => rubyLine(status, text, options as Options<O, false>) }),
    ...(takesSeconds && { takesSeconds: options => takesSeconds(options as Options<O, false>) }),
    run: (_, options, context) => check.run(noHost, options, context),
  }
}
