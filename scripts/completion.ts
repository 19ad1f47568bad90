import { kebabCase, kindOf, type Option, type OptionTable } from '../plugin/options.js'

/** An executable and all options of its command line. */
interface Program {
  readonly name: string
  readonly options: OptionTable
}

function entriesOf({ options }: Program): { name: string; option: Option }[] {
  return Object.entries(options).map(([name, option]) => ({ name: kebabCase(name), option }))
}

/** Completion of a program's options, and of the words a choice takes, for bash. */
export function bashCompletion(program: Program): string {
  const entries = entriesOf(program)
  const id = `_${program.name.replaceAll('-', '_')}`
  const choices = entries.flatMap(({ name, option }) =>
    option.type === 'choice'
      ? [`    --${name}) COMPREPLY=($(compgen -W '${option.choices.join(' ')}' -- "$word")); return ;;`]
      : [],
  )
  return `${id}() {
  local word=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]}
  case $previous in
${choices.join('\n')}
  esac
  COMPREPLY=($(compgen -W '${entries.map(({ name }) => `--${name}`).join(' ')}' -- "$word"))
}
complete -F ${id} ${program.name}
`
}

/** Completion of a program's options with their summaries for zsh. */
export function zshCompletion(program: Program): string {
  const lines = entriesOf(program).map(({ name, option }) => {
    const summary = option.summary.replaceAll("'", "'\\''").replaceAll(/[[\]:]/g, '\\$&')
    const repeated = option.type === 'strings' ? '*' : ''
    return `  '${repeated}--${name}[${summary}]${zshValue(name, option)}'`
  })
  return `#compdef ${program.name}\n_arguments \\\n${lines.join(' \\\n')}\n`
}

function zshValue(name: string, option: Option): string {
  if (option.type === 'flag') return ''
  return option.type === 'choice' ? `:${name}:(${option.choices.join(' ')})` : `:${kindOf(option).placeholder}: `
}
