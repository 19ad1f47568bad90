import { Ajv } from 'ajv'
import standalone from 'ajv/dist/standalone/index.js'
import type { Schema } from '../plugin/options.js'

/** Validators by the name they are exported with, each compiled from its schema, as an ES module without imports. */
export function validatorModule(schemas: Readonly<Record<string, Schema>>): string {
  const ajv = new Ajv({ allErrors: true, messages: false, strict: true, code: { source: true, esm: true } })
  const entries = Object.entries(schemas)
  for (const [name, schema] of entries) ajv.addSchema(schema, name)
  return `// @ts-nocheck\n${standalone.default(ajv, Object.fromEntries(entries.map(([name]) => [name, name])))}\n`
}

/** The types of such a module. */
export const validatorTypes = `import type { Validate } from '../../plugin/command-line.js'
export declare const validate: Validate
`
