import type { SensuEvent } from './event.js'
import type { SettingTable, SettingValues } from './settings-table.js'

/** The settings that every handler has besides its own. */
export const commonSettings = {
  timeout: {
    type: 'seconds',
    default: 8,
    minimum: 0.1,
    maximum: 86_400,
    summary: "Give up after this time, all retries included; less than the handler's `timeout` in Sensu's definition.",
  },
  dashboard_url: {
    type: 'text',
    protocols: ['http', 'https'],
    summary:
      'Where messages lead to, with tokens: `http://uchiwa.example/#/client/SITE/:::client.name:::?check=:::check.name:::`.',
  },
} as const satisfies SettingTable

/** What is to be done about an event. */
export type Action =
  /** Nothing, and why: `the event is a resolution, and resolve is false`. */
  | { readonly nothing: string }
  | {
      /** Exactly what would be sent, for `--dry-run`; secrets as `REDACTED`, ends without a line feed. */
      readonly preview: string
      /** Does it, and returns what was done: `sent to ops@example.com through mail.example:25`. Throws when it failed, with what, on what, and what to do. */
      run(): Promise<string>
    }

/** What `handle` gets besides the event and the settings. */
export interface HandlerContext {
  /** Aborted when the time is over; hand it to everything that waits. */
  readonly signal: AbortSignal
  /** Names what is being done, for the message of a run that ends by its timeout: `sending mail through mail.example:25`. */
  stage(name: string): void
  /** Milliseconds until the run ends by its timeout. */
  timeLeftMs(): number
  /** Milliseconds since 1970. */
  now(): number
  /** From 0 to 1, for jitter. */
  random(): number
  /** Environment variables. */
  readonly variables: Readonly<Record<string, string | undefined>>
  /** This machine's name. */
  readonly hostname: string
  /** Where a file of this machine is to be read, by its absolute path: there, or below $SENSU_KVM_ROOT, which tests set to a tree of their own. */
  path(absolute: string): string
}

type Settings<S extends SettingTable> = SettingValues<S> & SettingValues<typeof commonSettings>

/**
 * A rule between settings. It gets the values, and a function that says whether a setting stands in the section, rightly or not. Returns what is broken: sentences that begin with
 * the name of a setting. Reading the value of a setting that is wrong or missing itself ends the relation unjudged.
 */
export type Relation<S extends SettingTable> = (
  settings: Settings<S>,
  isGiven: (name: keyof Settings<S> & string) => boolean,
) => readonly `${keyof Settings<S> & string} ${string}`[]

/** What the author of a handler writes; the settings' types flow into the functions. */
export interface HandlerDefinition<S extends SettingTable> {
  /** The executable's name, and that of its section in the configuration unless the command line names another. */
  readonly name: string
  /** One sentence. */
  readonly summary: string
  /** More, in Markdown, for the documentation page. */
  readonly description?: string
  /** The handler's own settings; common ones are added. */
  readonly settings: S
  /** Default of the setting `timeout`, for a handler that takes longer than a message does. */
  readonly timeoutSeconds?: number
  /** The section of the sample configuration. */
  readonly sample: Readonly<Record<string, unknown>>
  /** Further attributes of the handler in the sample configuration, such as `severities`. */
  readonly sampleHandler?: Readonly<Record<string, unknown>>
  /** Rules between settings; a setting's own are in the table. Each is judged by itself. */
  readonly relations?: readonly Relation<S>[]
  /** Decides what to do about an event; changes and sends nothing. Throwing means failure, with the error's message as the one line. */
  handle(event: SensuEvent, settings: Settings<S>, context: HandlerContext): Action | Promise<Action>
}

/** A handler without the types of its settings: what runs, lists and documents handlers. */
export interface Handler {
  readonly name: string
  readonly summary: string
  readonly description: string | undefined
  /** The handler's own settings and the common ones. */
  readonly settings: SettingTable
  readonly sample: Readonly<Record<string, unknown>>
  readonly sampleHandler: Readonly<Record<string, unknown>>
  readonly relations: readonly ((
    settings: SettingValues<SettingTable>,
    isGiven: (name: string) => boolean,
  ) => readonly string[])[]
  handle(event: SensuEvent, settings: SettingValues<SettingTable>, context: HandlerContext): Promise<Action>
}

/** Declares a handler. */
export function defineHandler<const S extends SettingTable>(definition: HandlerDefinition<S>): Handler {
  const { timeoutSeconds = commonSettings.timeout.default } = definition
  // Where types meet again: the values were made from `settings`, which is the definition's table and the common one.
  const typed = (values: SettingValues<SettingTable>) => values as unknown as Settings<S>
  return {
    name: definition.name,
    summary: definition.summary,
    description: definition.description,
    settings: {
      ...definition.settings,
      ...commonSettings,
      timeout: { ...commonSettings.timeout, default: timeoutSeconds },
    },
    sample: definition.sample,
    sampleHandler: definition.sampleHandler ?? {},
    relations: (definition.relations ?? []).map(relation => (values, isGiven) => relation(typed(values), isGiven)),
    handle: async (event, values, context) => definition.handle(event, typed(values), context),
  }
}
