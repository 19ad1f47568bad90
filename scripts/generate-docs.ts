// Writes docs/checks/ and docs/handlers/ from checks and handlers, and docs/configuration.md from the services' settings; build.mjs must have transpiled
// them. `npm run docs` does both.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { configurationPage } from './configuration-docs.js'
import { documentation } from './docs.js'
import { loadChecks, writeFolder } from './generate.js'
import { loadHandlers } from './generate-handlers.js'
import { handlerDocumentation } from './handler-docs.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const { checks, problems } = await loadChecks(root)
const found = await loadHandlers(root)
for (const problem of [...problems, ...found.problems]) console.error(`docs: ${problem}`)
if (problems.length > 0) process.exitCode = 1
else writeFolder(join(root, 'docs/checks'), documentation(checks.map(({ check }) => check)))
if (found.problems.length > 0) process.exitCode = 1
else writeFolder(join(root, 'docs/handlers'), handlerDocumentation(found.handlers.map(({ handler }) => handler)))
writeFileSync(join(root, 'docs/configuration.md'), configurationPage())
