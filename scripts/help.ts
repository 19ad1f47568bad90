import yargs from 'yargs'
import { type AnyCheck, commandLineOptions } from '../plugin/command-line.js'
import type { Handler } from '../plugin/handler.js'
import { handlerOptions } from '../plugin/handler-arguments.js'
import { kebabCase, type Option } from '../plugin/options.js'

const rangesText =
  'Ranges are [@][start:][end]: a value outside start..end alerts, with @ one inside; ~ is minus infinity.\n'
const exitStatusText = 'Exit status: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.\n'

/** The text of a check's `--help`. Made at build time: loading the full yargs would cost an executable more than all the rest. */
export async function helpText(check: AnyCheck): Promise<string> {
  const builder = yargs([], '/')
    .scriptName(check.name)
    .usage(`${check.summary}\n\nUsage: $0 [options]`)
    .locale('en')
    .help(false)
    .version(false)
    .exitProcess(false)
    .wrap(110)
  for (const [name, option] of Object.entries(commandLineOptions(check))) {
    builder.option(kebabCase(name), {
      group: name in check.options ? 'Options:' : 'Common options:',
      describe: option.summary,
      defaultDescription: defaultText(option),
      ...(option.alias === undefined ? {} : { alias: option.alias }),
      ...(option.type === 'choice' ? { choices: option.choices } : {}),
      ...(option.type === 'flag' ? {} : { requiresArg: true }),
    })
  }
  const hasRanges = Object.values(check.options).some(({ type }) => type === 'range')
  return `${await builder.getHelp()}\n\n${hasRanges ? rangesText : ''}${exitStatusText}`
}

const handlerText = `Reads one Sensu event, as JSON, on standard input. Exit status: 0 done, or nothing to do; 1 failed; 2 the configuration or the
command line cannot be used.
`

/** The text of a handler's `--help`: its command line, and the settings of its section. */
export async function handlerHelpText(handler: Handler): Promise<string> {
  const builder = yargs([], '/')
    .scriptName(handler.name)
    .usage(`${handler.summary}\n\nUsage: $0 [options] < EVENT`)
    .locale('en')
    .help(false)
    .version(false)
    .exitProcess(false)
    .wrap(110)
  for (const [name, option] of Object.entries<Option>(handlerOptions)) {
    builder.option(kebabCase(name), {
      describe: option.summary,
      ...(option.alias === undefined ? {} : { alias: option.alias }),
      ...(option.type === 'flag' ? {} : { requiresArg: true }),
    })
  }
  const settings = Object.entries(handler.settings).map(([name, setting]) => {
    const value = 'default' in setting && setting.default !== undefined ? ` [default: ${setting.default}]` : ''
    return `  ${name}${setting.required ? ' (required)' : ''}: ${setting.summary.replaceAll('`', '')}${value}`
  })
  const section = `Settings, in the section ${handler.name} of the configuration (secrets also as NAME_file and NAME_env):`
  return `${await builder.getHelp()}\n\n${section}\n${settings.join('\n')}\n\n${handlerText}`
}

/** The option's default in its own words; switches are off and need none. */
function defaultText(option: Option): string | undefined {
  return 'default' in option && option.default !== undefined ? String(option.default) : undefined
}
