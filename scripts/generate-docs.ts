// Writes docs/checks/ from the checks and docs/configuration.md from the agent's settings; build.mjs must have transpiled them. `npm run docs` does both.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { configurationPage } from './configuration-docs.js'
import { documentation } from './docs.js'
import { loadChecks, writeFolder } from './generate.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const { checks, problems } = await loadChecks(root)
for (const problem of problems) console.error(`docs: ${problem}`)
if (problems.length > 0) process.exitCode = 1
else writeFolder(join(root, 'docs/checks'), documentation(checks.map(({ check }) => check)))
writeFileSync(join(root, 'docs/configuration.md'), configurationPage())
