import yargs from 'yargs'
import { type AnyCheck, commandLineOptions } from '../plugin/command-line.js'
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

/** The option's default in its own words; switches are off and need none. */
function defaultText(option: Option): string | undefined {
  return 'default' in option && option.default !== undefined ? String(option.default) : undefined
}
