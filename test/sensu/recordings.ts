import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseJson } from '../../sensu/json.js'
import { isObject } from '../../sensu/json-value.js'
import type { Json, JsonObject } from '../../sensu/types.js'

const fixtures = fileURLToPath(new URL('../../../test/fixtures/', import.meta.url))

export type Recording = { name: string; input: Json; observed: Json }

/** A case recorded from Sensu 1.9, read with the project's own parser so that floats stay floats. */
export function recording(path: string): Recording {
  const content = parseJson(readFileSync(`${fixtures}${path}.json`))
  if (!isObject(content)) throw new Error(`${path} is no recording`)
  const { case: name, input, observed } = content
  return { name: String(name), input: input ?? null, observed: observed ?? null }
}

/** All recorded cases of a folder whose names match. */
export function recordings(folder: string, pattern: RegExp): Recording[] {
  const files = readdirSync(fixtures + folder).filter(file => pattern.test(file))
  return files.sort().map(file => recording(`${folder}/${file.replace(/\.json$/, '')}`))
}

/** The observed value as a list of objects: the rows of a table. */
export function rows(table: Recording): JsonObject[] {
  return list(table.observed).filter(isObject)
}

export function list(value: Json | undefined): Json[] {
  if (!Array.isArray(value)) throw new Error('expected an array')
  return value
}

export function hash(value: Json | undefined): JsonObject {
  if (!isObject(value)) throw new Error('expected a hash')
  return value
}

export function text(value: Json | undefined): string {
  if (typeof value !== 'string') throw new Error('expected a string')
  return value
}
