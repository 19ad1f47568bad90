import { entriesOf, fromEntries, isObject, member } from './json-value.js'
import { ShellQuoting } from './shell-quoting.js'
import { plainText } from './text-forms.js'
import type { CheckDefinition, Json, JsonObject } from './types.js'

// Three colons, something that is no colon, the shortest text of one line up to the next three.
const token = /:::([^:].*?):::/g

/**
 * Replaces the tokens `:::path.to.attribute|default:::` of a text by attributes, as Sensu 1.9 does; text that is not
 * ASCII stays (the reference loses it). A token without value and default becomes nothing and its path is
 * reported, as often as it occurs.
 */
export function substituteText(text: string, attributes: JsonObject): { text: string; unmatched: string[] } {
  return substitute(text, attributes, value => value)
}

/**
 * The same for a command, with each value written so that the shell takes it for text, whatever it contains (`sensu_kvm.tokens.quote`; Sensu puts
 * values in as they are). Throws UnquotableError when a token stands where that is not possible.
 */
export function substituteCommand(command: string, attributes: JsonObject): { text: string; unmatched: string[] } {
  const quoting = new ShellQuoting(command)
  return substitute(command, attributes, (value, offset, length) => quoting.quote(value, offset, length))
}

/** What {@link separateTokens} puts in the place of a token; the group is the number of its value. */
export const tokenMark = /\ue000(\d+)\ue001/

/** The text with marks where tokens were, and their values beside it: for who must not take a value for anything else. */
export function separateTokens(
  text: string,
  attributes: JsonObject,
): { text: string; values: string[]; unmatched: string[] } {
  const values: string[] = []
  const marked = substitute(text, attributes, value => `\ue000${values.push(value) - 1}\ue001`)
  return { ...marked, values }
}

type Write = (value: string, offset: number, length: number) => string

function substitute(text: string, attributes: JsonObject, write: Write): { text: string; unmatched: string[] } {
  const unmatched: string[] = []
  const substituted = text.replace(token, (whole: string, content: string, offset: number) => {
    const bar = content.indexOf('|')
    const path = bar < 0 ? content : content.slice(0, bar)
    const value = lookUp(path, attributes)
    if (value !== undefined) return write(plainText(value), offset, whole.length)
    if (bar >= 0) return write(content.slice(bar + 1), offset, whole.length)
    unmatched.push(path)
    return ''
  })
  return { text: substituted, unmatched }
}

/**
 * The attribute at a dotted path: the way ends at the first value that is no hash, whatever is left of the path.
 * Undefined for a hash at the end, null, and what is missing.
 */
function lookUp(path: string, attributes: JsonObject): Json | undefined {
  let value: Json | undefined = attributes
  for (const part of path.split('.')) {
    if (!isObject(value)) break
    value = member(value, part)
  }
  return isObject(value) || value === null ? undefined : value
}

/**
 * Replaces the tokens of every string in a value, at any depth; keys and other values stay. `unmatched` are the paths
 * without a value, in order, each once. Nothing of the given value is changed or shared.
 */
export function substituteTokens<T extends Json>(value: T, attributes: JsonObject): { value: T; unmatched: string[] }
export function substituteTokens(value: Json, attributes: JsonObject): { value: Json; unmatched: string[] } {
  const unmatched = new Set<string>()
  const visit = (part: Json): Json => {
    if (Array.isArray(part)) return part.map(visit)
    if (isObject(part)) return fromEntries(entriesOf(part).map(([key, item]) => [key, visit(item)] as const))
    if (typeof part !== 'string') return part
    const substituted = substituteText(part, attributes)
    for (const path of substituted.unmatched) unmatched.add(path)
    return substituted.text
  }
  return { value: visit(value), unmatched: [...unmatched] }
}

export type SubstitutedCheck = {
  /** the check to publish: substituted, but `command` and the hooks' commands as they were written */
  check: CheckDefinition
  /** the command to run */
  command: Json | undefined
  /** paths without a value; when there are any the command must not run */
  unmatched: string[]
}

/**
 * Prepares a check for execution: tokens of all its strings are replaced by the client's attributes. An empty `source` and
 * a null `hooks` are removed. Secrets of the client never get into the published commands.
 * With `quote` the values in the command are quoted for the shell, which can throw UnquotableError.
 */
export function substituteCheck(check: CheckDefinition, client: JsonObject, quote = false): SubstitutedCheck {
  const { value: substituted, unmatched } = substituteTokens(check, client)
  const written = member(check, 'command')
  const quoted = quote && typeof written === 'string' ? substituteCommand(written, client).text : undefined
  const command = quoted ?? member(substituted, 'command')
  const published = entriesOf(substituted).flatMap(([key, value]): [string, Json][] => {
    if (key === 'command') return [[key, member(check, key) ?? null]]
    if (key === 'hooks') return value === null ? [] : [[key, withOriginalCommands(value, member(check, key))]]
    return key === 'source' && value === '' ? [] : [[key, value]]
  })
  return { check: fromEntries(published), command, unmatched }
}

function withOriginalCommands(hooks: Json, original: Json | undefined): Json {
  if (!isObject(hooks) || !isObject(original)) return hooks
  return fromEntries(
    entriesOf(hooks).map(([key, hook]) => {
      const written = member(original, key)
      const command = isObject(written) ? member(written, 'command') : undefined
      return [key, isObject(hook) && command !== undefined ? { ...hook, command } : hook] as const
    }),
  )
}
