// Builds everything: type check aside, `build/` gets every module transpiled one to one (tests and scripts run from there),
// `generated/` what follows from the checks, `dist/bin/` one self-contained CommonJS file per executable (CommonJS starts faster than ESM).
// Nothing is wiped: what is stale goes, the rest is replaced, so that something running from build/ is not pulled from under.
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))
const sources = [
  'libvirt',
  'sensu',
  'plugin',
  'checks',
  'handlers',
  'transport',
  'store',
  'pipeline',
  'agent',
  'server',
  'scripts',
  'bench',
  'test',
]

/**
 * Every file below a folder of the project, as paths relative to the root; none when the folder is missing.
 * @param {string} folder
 */
function filesBelow(folder) {
  const path = join(root, folder)
  if (!existsSync(path)) return []
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => relative(root, join(entry.parentPath, entry.name)))
}

/**
 * Source files that become a module of the same name below build/.
 * @param {string} folder
 */
function modulesBelow(folder) {
  return filesBelow(folder).filter(
    file => /(?<!\.d)\.ts$/.test(file) || (folder === 'generated' && file.endsWith('.js')),
  )
}

/**
 * Transpiles modules one to one.
 * @param {string[]} modules
 */
async function transpile(modules) {
  if (modules.length === 0) return
  await build({
    absWorkingDir: root,
    entryPoints: modules,
    outdir: 'build',
    outbase: '.',
    format: 'esm',
    platform: 'node',
    target: 'node20',
    sourcemap: 'inline',
    logLevel: 'warning',
  })
}

/**
 * Removes modules below build/ whose source is gone.
 * @param {string} folder
 * @param {string[]} modules
 */
function removeStale(folder, modules) {
  const wanted = new Set(modules.map(module => join('build', module.replace(/\.ts$/, '.js'))))
  for (const file of filesBelow(join('build', folder))) {
    if (!wanted.has(file)) rmSync(join(root, file))
  }
}

/**
 * One file per executable, moved into place when it is complete: one that is just being started stays whole.
 * @param {string[]} entries
 */
async function bundle(entries) {
  const bin = join(root, 'dist/bin')
  const fresh = join(root, 'dist/bin.new')
  rmSync(fresh, { recursive: true, force: true })
  mkdirSync(bin, { recursive: true })
  writeFileSync(join(root, 'dist/package.json'), '{"type":"commonjs"}\n')
  if (entries.length > 0) {
    await build({
      absWorkingDir: root,
      entryPoints: entries,
      outdir: fresh,
      bundle: true,
      minify: true,
      keepNames: true,
      format: 'cjs',
      platform: 'node',
      target: 'node20',
      logLevel: 'warning',
      // yargs asks for the place of its own file; in a bundle that is the bundle.
      define: { 'import.meta.url': 'bundleUrl' },
      banner: { js: '#!/usr/bin/env node\nconst bundleUrl=require("node:url").pathToFileURL(__filename).href;' },
    })
  }
  const names = entries.map(entry => entry.replace(/^.*\//, '').replace(/\.ts$/, ''))
  for (const name of names) renameSync(join(fresh, `${name}.js`), join(bin, name))
  for (const name of readdirSync(bin)) {
    if (!names.includes(name)) rmSync(join(bin, name))
  }
  rmSync(fresh, { recursive: true, force: true })
  return bin
}

// What is wrong is already printed, by file and line; a stack trace of the bundler would bury it.
process.once('uncaughtException', error => {
  if (!('errors' in error)) console.error(error)
  process.exitCode = 1
})

const modules = sources.flatMap(modulesBelow)
await transpile(modules)
for (const folder of sources) {
  removeStale(
    folder,
    modules.filter(module => module.startsWith(`${folder}/`)),
  )
}

const generator = join(root, 'build/scripts/generate.js')
const { generate, markExecutable } = await import(pathToFileURL(generator).href)
const { problems } = await generate(root)
const generated = modulesBelow('generated')
await transpile(generated)
removeStale('generated', generated)
markExecutable(await bundle(generated.filter(file => file.startsWith('generated/bin/'))))

for (const problem of problems) console.error(`build: ${problem}`)
if (problems.length > 0) process.exitCode = 1
