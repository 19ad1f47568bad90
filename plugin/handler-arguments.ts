import { readArguments, type Validate } from './command-line.js'
import { type OptionTable, type OptionValues, optionsSchema, readOptions, type Schema } from './options.js'

/** The options that every handler has; what it does is in its section of the configuration. */
export const handlerOptions = {
  config: {
    type: 'string',
    alias: 'c',
    summary: 'Read this configuration file, and only it and what --config-dir names.',
  },
  configDir: {
    type: 'strings',
    alias: 'd',
    summary: 'Read all *.json files below this directory, and only them and what --config names.',
  },
  configSection: {
    type: 'string',
    alias: 's',
    summary: "Section of the configuration with the settings (default: the handler's name).",
  },
  dryRun: { type: 'flag', alias: 'n', summary: 'Print exactly what would be sent, secrets hidden, and send nothing.' },
  validate: { type: 'flag', summary: 'Check the configuration, say all that is wrong with it, and read no event.' },
  version: { type: 'flag', alias: 'V', summary: 'Print the version.' },
  help: { type: 'flag', alias: 'h', summary: 'Print this help.' },
} as const satisfies OptionTable

export type HandlerOptions = OptionValues<typeof handlerOptions>

/** What a handler's command line asks for. */
export type HandlerRequest =
  | { readonly kind: 'help' | 'version' }
  | { readonly kind: 'problems'; readonly problems: readonly string[] }
  | { readonly kind: 'run'; readonly options: HandlerOptions }

/** The JSON schema of every handler's command line. */
export function handlerArgumentsSchema(): Schema {
  return { title: 'handler', ...optionsSchema(handlerOptions) }
}

/** Reads a handler's command line. Never throws: what is wrong with it comes back as one line per problem. */
export function parseHandlerArguments(validate: Validate, argv: readonly string[]): HandlerRequest {
  const { raw, problems } = readArguments(handlerOptions, validate, argv)
  if (raw['help'] === true) return { kind: 'help' }
  if (raw['version'] === true) return { kind: 'version' }
  const options = readOptions(handlerOptions, raw, problems)
  return problems.length > 0 ? { kind: 'problems', problems } : { kind: 'run', options }
}
