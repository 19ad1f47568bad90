import { defaultConfigDirectory, defaultConfigFile, sensuVersion } from './defaults.js'
import { logLevels } from './log.js'
import type { LogLevel } from './types.js'

/** What the command line of a Sensu service asks for. Absent means not given. */
export type ServiceOptions = {
  configFile?: string
  configDirectories?: string[]
  extensionDirectory?: string
  logFile?: string
  logLevel?: LogLevel
  pidFile?: string
  validateConfig?: boolean
  printConfig?: boolean
  background?: boolean
  /** long names of the program's own switches that were given */
  switches?: string[]
}

/** An option without an argument that one program has besides the common ones. */
export type Switch = { long: string; summary: string }

/** Either the options to run with, or what to print before ending with the status. */
export type CommandLine =
  | { kind: 'run'; options: ServiceOptions }
  | { kind: 'exit'; status: number; stdout: string; stderr: string }

type Option = {
  short?: string
  long: string
  /** name of the argument in the usage text; without it the option takes none */
  argument?: string
  summary: string
  /** changes the options, or ends the program */
  apply(options: ServiceOptions, value: string, program: Program): CommandLine | undefined
}

/** Name and version as printed, and the program's own options. */
export type Program = { program: string; version?: string; switches?: readonly Switch[] }

/**
 * Parses the command line all services of Sensu 1.9 share. Long options may be abbreviated as long as they stay
 * unambiguous, values may be attached (`-dDIR`, `--log=FILE`), short options may be combined, the last occurrence wins,
 * other arguments are ignored. Options take effect in order: `--help` ends the program as soon as it is reached.
 */
export function parseServiceArguments(
  argv: readonly string[],
  settings: Program & { defaults?: ServiceOptions },
): CommandLine {
  const options: ServiceOptions = { ...settings.defaults }
  const rest = [...argv]
  for (let word = rest.shift(); word !== undefined && word !== '--'; word = rest.shift()) {
    const ending = word.startsWith('--')
      ? applyLong(word, rest, options, settings)
      : applyShort(word, rest, options, settings)
    if (ending) return ending
  }
  return { kind: 'run', options }
}

/** The text of `--help`, with a line feed at its end. */
export function usageText(program: string, switches: readonly Switch[] = []): string {
  const lines = optionsOf({ program, switches }).map(({ short, long, argument, summary }) => {
    const names = `${short === undefined ? '    ' : `-${short}, `}--${long}${argument === undefined ? '' : ` ${argument}`}`
    return `    ${names.padEnd(33)}${summary}\n`
  })
  return `Usage: ${program} [options]\n${lines.join('')}`
}

function optionsOf({ switches = [] }: Program): readonly Option[] {
  const own = switches.map(
    ({ long, summary }): Option => ({
      long,
      summary,
      apply(options) {
        options.switches = [...(options.switches ?? []), long]
        return undefined
      },
    }),
  )
  return [...serviceOptions, ...own]
}

function applyLong(word: string, rest: string[], options: ServiceOptions, program: Program): CommandLine | undefined {
  const equals = word.indexOf('=')
  const name = word.slice(2, equals < 0 ? undefined : equals)
  const matching = optionsOf(program).filter(({ long }) => long.startsWith(name))
  // Of `--config` and `--config_dir` the first is meant as long as both may be.
  const option = matching.toSorted((one, other) => one.long.length - other.long.length)[0]
  if (option === undefined) return misuse(`invalid option: ${word}`)
  if (matching.some(({ long }) => !long.startsWith(option.long))) return misuse(`ambiguous option: ${word}`)
  const attached = equals < 0 ? undefined : word.slice(equals + 1)
  if (option.argument === undefined) {
    return attached === undefined ? option.apply(options, '', program) : misuse(`needless argument: ${word}`)
  }
  const value = attached ?? rest.shift()
  return value === undefined ? misuse(`missing argument: ${word}`) : option.apply(options, value, program)
}

function applyShort(word: string, rest: string[], options: ServiceOptions, program: Program): CommandLine | undefined {
  if (!word.startsWith('-') || word === '-') return undefined
  for (let at = 1; at < word.length; at++) {
    const option = serviceOptions.find(({ short }) => short === word[at])
    if (option === undefined) return misuse(`invalid option: -${word.slice(at)}`)
    if (option.argument !== undefined) {
      const value = word.length > at + 1 ? word.slice(at + 1) : rest.shift()
      return value === undefined ? misuse(`missing argument: -${word[at]}`) : option.apply(options, value, program)
    }
    const ending = option.apply(options, '', program)
    if (ending) return ending
  }
  return undefined
}

function misuse(problem: string): CommandLine {
  return { kind: 'exit', status: 1, stdout: '', stderr: `${problem}\n` }
}

function answer(stdout: string, status = 0): CommandLine {
  return { kind: 'exit', status, stdout, stderr: '' }
}

function setLogLevel(options: ServiceOptions, value: string): CommandLine | undefined {
  const level = logLevels.find(name => name === value.toLowerCase())
  if (level === undefined) return answer(`Unknown log level: ${value}\n`, 1)
  options.logLevel = level
  return undefined
}

const serviceOptions: readonly Option[] = [
  {
    short: 'h',
    long: 'help',
    summary: 'Print this text and exit',
    apply: (_options, _value, { program, switches }) => answer(usageText(program, switches)),
  },
  {
    short: 'V',
    long: 'version',
    summary: 'Print the version and exit',
    apply: (_options, _value, { version = sensuVersion }) => answer(`${version}\n`),
  },
  {
    short: 'c',
    long: 'config',
    argument: 'FILE',
    summary: `Read this configuration file first (default: ${defaultConfigFile}, if it exists)`,
    apply(options, value) {
      options.configFile = value
      return undefined
    },
  },
  {
    short: 'd',
    long: 'config_dir',
    argument: 'DIR[,DIR]',
    summary: `Read all *.json files below these directories (default: ${defaultConfigDirectory}, if it exists)`,
    apply(options, value) {
      options.configDirectories = value.split(',').filter(directory => directory !== '')
      return undefined
    },
  },
  {
    long: 'validate_config',
    summary: 'Check the configuration, report and exit (0 valid, 2 invalid)',
    apply(options) {
      options.validateConfig = true
      return undefined
    },
  },
  {
    short: 'P',
    long: 'print_config',
    summary: 'Print the merged configuration without secrets and exit',
    apply(options) {
      options.printConfig = true
      return undefined
    },
  },
  {
    short: 'e',
    long: 'extension_dir',
    argument: 'DIR',
    summary: 'Directory with extensions',
    apply(options, value) {
      options.extensionDirectory = value
      return undefined
    },
  },
  {
    short: 'l',
    long: 'log',
    argument: 'FILE',
    summary: 'Append the log to this file (default: standard output)',
    apply(options, value) {
      options.logFile = value
      return undefined
    },
  },
  {
    short: 'L',
    long: 'log_level',
    argument: 'LEVEL',
    summary: `Lowest level to log: ${logLevels.join(', ')} (default: info)`,
    apply: setLogLevel,
  },
  {
    short: 'v',
    long: 'verbose',
    summary: 'Log at level debug',
    apply: options => setLogLevel(options, 'debug'),
  },
  {
    short: 'b',
    long: 'background',
    summary: 'Detach from the terminal and run in the background',
    apply(options) {
      options.background = true
      return undefined
    },
  },
  {
    short: 'p',
    long: 'pid_file',
    argument: 'FILE',
    summary: 'Write the process id to this file',
    apply(options, value) {
      options.pidFile = value
      return undefined
    },
  },
]
