import { isInteger, isObject, member } from './json-value.js'
import type { ConfigurationError, Json, JsonObject, Settings } from './types.js'

/** Name of this project's own section of the configuration; Sensu ignores it. */
export const SECTION = 'sensu_kvm'

/** Below this key of the section are the server's settings; everything else is the agent's. One configuration serves both. */
const SERVER = 'server'

/** One setting; dots in the key separate levels. */
export type OwnSetting = { key: string; summary: string } & (
  | { type: 'boolean'; default: boolean }
  | { type: 'string'; default: string }
  | { type: 'integer'; default: number; minimum: number }
  | { type: 'choice'; default: string; values: readonly string[] }
)

type Value<R extends OwnSetting> = R extends { values: readonly (infer V)[] }
  ? V
  : R extends { type: 'boolean' }
    ? boolean
    : R extends { type: 'integer' }
      ? number
      : string

/** A table's values by dotted key, defaults filled in. */
export type OwnValues<T extends readonly OwnSetting[]> = { [R in T[number] as R['key']]: Value<R> }

/** Reads the section by a table. The errors are in the form and style of Sensu's own; with any, the values must not be used. */
export function readOwnSettings<const T extends readonly OwnSetting[]>(
  table: T,
  settings: Settings,
): { values: OwnValues<T>; errors: ConfigurationError[] } {
  const section = settings[SECTION] ?? {}
  if (!isObject(section)) {
    return { values: valuesOf(table, {}), errors: [{ object: section, message: `${SECTION} must be a hash` }] }
  }
  const messages = [
    ...unknownKeys(table, section, []),
    ...table.flatMap(row => faultOf(row, lookUp(section, row.key)) ?? []),
  ]
  return { values: valuesOf(table, section), errors: messages.map(message => ({ object: section, message })) }
}

function valuesOf<T extends readonly OwnSetting[]>(table: T, section: JsonObject): OwnValues<T> {
  const entries = table.map(row => [row.key, lookUp(section, row.key) ?? row.default])
  return Object.fromEntries(entries) as OwnValues<T>
}

/** Undefined when the value is right, or absent. */
function faultOf(row: OwnSetting, value: Json | undefined): string | undefined {
  const name = `${SECTION} ${row.key.replaceAll('.', ' ')}`
  if (value === undefined || value === null) return undefined
  switch (row.type) {
    case 'boolean':
      return typeof value === 'boolean' ? undefined : `${name} must be boolean`
    case 'string':
      return typeof value === 'string' ? undefined : `${name} must be a string`
    case 'choice':
      return typeof value === 'string' && row.values.includes(value)
        ? undefined
        : `${name} must be one of: ${row.values.join(', ')}`
    case 'integer':
      return isInteger(value) && value >= row.minimum
        ? undefined
        : `${name} must be an integer not less than ${row.minimum}`
  }
}

/** A misspelt setting would be ignored in silence otherwise. What belongs to the other program is not looked at. */
function unknownKeys(table: readonly OwnSetting[], section: JsonObject, path: string[]): string[] {
  const isServers = table.some(row => row.key.startsWith(`${SERVER}.`))
  return Object.entries(section).flatMap(([key, value]) => {
    const here = [...path, key]
    const dotted = here.join('.')
    if ((here[0] === SERVER) !== isServers) return []
    if (table.some(row => row.key === dotted)) return []
    if (!table.some(row => row.key.startsWith(`${dotted}.`))) {
      return [`${SECTION} ${here.join(' ')} is not a known setting`]
    }
    return isObject(value) ? unknownKeys(table, value, here) : [`${SECTION} ${here.join(' ')} must be a hash`]
  })
}

function lookUp(section: JsonObject, key: string): Json | undefined {
  return key
    .split('.')
    .reduce<Json | undefined>((value, part) => (isObject(value) ? member(value, part) : undefined), section)
}
