import { type AnyCheck, commandLineOptions } from '../plugin/command-line.js'
import { kebabCase, kindOf, type Option } from '../plugin/options.js'

function entriesOf(check: AnyCheck): { name: string; option: Option }[] {
  return Object.entries(commandLineOptions(check)).map(([name, option]) => ({ name: kebabCase(name), option }))
}

/** Completion of a check's options, and of the words a choice takes, for bash. */
export function bashCompletion(check: AnyCheck): string {
  const entries = entriesOf(check)
  const id = `_${check.name.replaceAll('-', '_')}`
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
complete -F ${id} ${check.name}
`
}

/** Completion of a check's options with their summaries for zsh. */
export function zshCompletion(check: AnyCheck): string {
  const lines = entriesOf(check).map(({ name, option }) => {
    const summary = option.summary.replaceAll("'", "'\\''").replaceAll(/[[\]:]/g, '\\$&')
    const repeated = option.type === 'strings' ? '*' : ''
    return `  '${repeated}--${name}[${summary}]${zshValue(name, option)}'`
  })
  return `#compdef ${check.name}\n_arguments \\\n${lines.join(' \\\n')}\n`
}

function zshValue(name: string, option: Option): string {
  if (option.type === 'flag') return ''
  return option.type === 'choice' ? `:${name}:(${option.choices.join(' ')})` : `:${kindOf(option).placeholder}: `
}
