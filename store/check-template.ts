import { stringifyJson } from '../sensu/json.js'
import { entriesOf } from '../sensu/json-value.js'
import type { Json, JsonObject } from '../sensu/types.js'

// A template is a JSON text cut where the script in Redis fills something in: piece, hole, piece, … piece.
type Hole = 'command' | 'history' | 'total_state_change'

/** The check as it is stored; `text` is the JSON of `check`, which is used again when nothing was truncated. */
export function storedTemplate(stored: JsonObject, check: JsonObject, text: string, cutsCommand: boolean): string[] {
  if (cutsCommand) return template(stored, ['command'])
  return [stored === check ? text : jsonText(stored)]
}

/** The check as it goes into the event: with its history and total state change, at the end unless they came with it. */
export function eventTemplate(check: JsonObject, text: string, cutsCommand: boolean): string[] {
  if (cutsCommand || Object.hasOwn(check, 'history') || Object.hasOwn(check, 'total_state_change')) {
    return template(
      check,
      cutsCommand ? ['command', 'history', 'total_state_change'] : ['history', 'total_state_change'],
    )
  }
  // The usual result: the two attributes follow the others.
  return [`${text.slice(0, -1)},"history":`, 'history', ',"total_state_change":', 'total_state_change', '}']
}

/** Cuts the check's JSON at the values of the named attributes; those it does not have are appended in the given order. */
function template(check: JsonObject, holes: Hole[]): string[] {
  const pieces: string[] = []
  let piece = '{'
  const missing = new Set<string>(holes)
  const add = (key: string, value: Json | undefined) => {
    piece += `${piece === '{' || piece.endsWith('{') ? '' : ','}${jsonText(key)}:`
    if (value === undefined) {
      pieces.push(piece, key)
      piece = ''
    } else piece += jsonText(value)
  }
  for (const [key, value] of entriesOf(check)) {
    add(key, missing.delete(key) ? undefined : value)
  }
  for (const key of missing) add(key, undefined)
  return [...pieces, `${piece}}`]
}

/** JSON text that Redis' own decoder accepts too: it refuses the escapes of lone surrogates, which are no characters anyway. */
export function jsonText(value: Json): string {
  return replaceLoneSurrogates(stringifyJson(value))
}

/** Replaces the escapes of lone surrogates in a JSON text by those of U+FFFD. */
export function replaceLoneSurrogates(text: string): string {
  if (!text.includes('\\u')) return text
  return text.replace(/\\(?:u[dD][89a-fA-F][0-9a-fA-F]{2}|.)/g, found => (/^\\u[dD]/.test(found) ? '\\ufffd' : found))
}
