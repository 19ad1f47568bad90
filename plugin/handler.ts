import type { SensuEvent } from './event.js'
import type { SettingTable, SettingValues } from './settings-table.js'

/** The settings that every handler has besides its own. */
export const commonSettings = {
  timeout: {
    type: 'seconds',
    default: 8,
    minimum: 0.1,
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
}

type Settings<S extends SettingTable> = SettingValues<S> & SettingValues<typeof commonSettings>

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
  /** The section of the sample configuration. */
  readonly sample: Readonly<Record<string, unknown>>
  /** Further attributes of the handler in the sample configuration, such as `severities`. */
  readonly sampleHandler?: Readonly<Record<string, unknown>>
  /** What is wrong with settings that are right one by one: each a sentence that begins with an attribute's name. */
  rules?(settings: Settings<S>): string[]
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
  rules(settings: SettingValues<SettingTable>): string[]
  handle(event: SensuEvent, settings: SettingValues<SettingTable>, context: HandlerContext): Promise<Action>
}

/** Declares a handler. */
export function defineHandler<const S extends SettingTable>(definition: HandlerDefinition<S>): Handler {
  // Where types meet again: the values were made from `settings`, which is the definition's table and the common one.
  const typed = (values: SettingValues<SettingTable>) => values as unknown as Settings<S>
  return {
    name: definition.name,
    summary: definition.summary,
    description: definition.description,
    settings: { ...definition.settings, ...commonSettings },
    sample: definition.sample,
    sampleHandler: definition.sampleHandler ?? {},
    rules: values => definition.rules?.(typed(values)) ?? [],
    handle: async (event, values, context) => definition.handle(event, typed(values), context),
  }
}
