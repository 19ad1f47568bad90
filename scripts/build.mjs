// Builds everything: type check aside, `build/` gets every module transpiled one to one (tests and scripts run from there),
// `generated/` what follows from the checks and handlers, `dist/bin/` one self-contained CommonJS file for each (CommonJS starts faster than ESM), and two per service.
// Nothing is wiped: what is stale goes, the rest is replaced, so that something running from build/ is not pulled from under.
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { basename, join, relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'
import { addCodeCache } from './code-cache.mjs'
import { buildService } from './service-parts.mjs'

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
 * Transpiles modules one to one. One that cannot be parsed fails the build, but the others are made all the same.
 * @param {string[]} modules
 * @returns {Promise<void>}
 */
async function transpile(modules) {
  if (modules.length === 0) return
  try {
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
      // generated entries are only ever run as bundles, where require works
      logOverride: { 'unsupported-require-call': 'silent' },
    })
  } catch (error) {
    const failed = new Set(failures(error).map(({ location }) => location?.file))
    const others = modules.filter(module => !failed.has(module))
    if (others.length === modules.length) throw error
    process.exitCode = 1
    await transpile(others)
  }
}

/**
 * What the bundler found wrong; it has printed that already, by file and line.
 * @param {unknown} error
 * @returns {import('esbuild').Message[]}
 */
function failures(error) {
  return error instanceof Error && 'errors' in error && Array.isArray(error.errors) ? error.errors : []
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

/** Modules of Node that are loaded when they are first used, not at the start: together they cost a check some 8 ms, and it rarely needs them. */
const lazyModules = ['child_process', 'crypto', 'fs/promises', 'module', 'timers/promises', 'tls']

/** Replaces each of them by an object whose properties load it. @type {import('esbuild').Plugin} */
const loadLazily = {
  name: 'load lazily',
  setup(hooks) {
    const filter = new RegExp(`^(?:node:)?(?:${lazyModules.join('|')})$`)
    hooks.onResolve({ filter }, ({ path, namespace }) =>
      namespace === 'lazy' ? { path, external: true } : { path, namespace: 'lazy' },
    )
    hooks.onLoad({ filter, namespace: 'lazy' }, ({ path }) => {
      const names = JSON.stringify(Object.keys(createRequire(import.meta.url)(path)))
      const getter = `{ enumerable: true, get: () => require('${path}')[name] }`
      return { contents: `for (const name of ${names}) Object.defineProperty(exports, name, ${getter})` }
    })
  },
}

/** The compiled part of koffi, which calls C, is a file beside the services that is read when it is needed. */
const nativeFile = 'koffi.node'

/** Replaces koffi by that. @type {import('esbuild').Plugin} */
const nativeLibrary = {
  name: 'native library',
  setup(hooks) {
    hooks.onResolve({ filter: /^koffi$/ }, ({ path }) => ({ path, namespace: 'native' }))
    hooks.onResolve({ filter: /[.]node$/, namespace: 'native' }, ({ path }) => ({ path, external: true }))
    hooks.onLoad({ filter: /^/, namespace: 'native' }, () => ({
      contents: `module.exports = require('./${nativeFile}')`,
    }))
  },
}

// Some dependencies ask for the place of their own file; in a bundle that is the bundle. The clock that Node offers as
// `performance` comes with a library that takes 2 ms to load; the one it is made of is always there.
const surroundings = `const bundle = {
  get url() { return require('node:url').pathToFileURL(__filename).href },
  now() { const [seconds, nanoseconds] = process.hrtime(); return seconds * 1e3 + nanoseconds / 1e6 },
};`

/** How all of them are made. @type {import('esbuild').BuildOptions} */
const bundling = {
  absWorkingDir: root,
  bundle: true,
  platform: 'node',
  target: 'node20',
  logLevel: 'warning',
  plugins: [loadLazily, nativeLibrary],
  // Its form for browsers does without the parts that read configuration files.
  alias: { 'yargs-parser': 'yargs-parser/browser' },
  define: { 'import.meta.url': 'bundle.url', 'performance.now': 'bundle.now' },
}

/**
 * Makes one self-contained file of each entry, all or none.
 * @param {string[]} entries
 * @param {string} outdir
 */
async function bundle(entries, outdir) {
  if (entries.length === 0) return
  const banner = { js: `#!/usr/bin/env node\n${surroundings}` }
  await build({ ...bundling, entryPoints: entries, outdir, minify: true, format: 'cjs', banner })
}

/** What checks of this machine are run with once, for the compiled code, where without arguments they would wait or do nothing. */
const localWarmUps = new Map([
  ['check-cpu', ['--sleep', '0']],
  ['check-http', ['--url', 'http://127.0.0.1:1/']],
])

/** What handlers are run with once. */
const warmUpEvent = JSON.stringify({
  client: { name: 'web1' },
  check: {
    name: 'state',
    source: 'web1',
    origin: 'host',
    status: 2,
    output: 'state CRITICAL: paused',
    history: ['0', '2'],
  },
  action: 'create',
  occurrences: 1,
  last_state_change: 1,
  timestamp: 2,
})

/**
 * Fills dist/bin. Bundles are moved into place when they are complete: one that is just being started stays whole.
 * The services are bundled by themselves, so that checks can be tried while one of them does not compile, and the other way round.
 * @param {string[]} entries
 * @param {import('../plugin/check.js').Check<never>[]} checks
 * @param {import('../plugin/handler.js').Handler[]} handlers
 */
async function fillBin(entries, checks, handlers) {
  const bin = join(root, 'dist/bin')
  const fresh = join(root, 'dist/bin.new')
  rmSync(fresh, { recursive: true, force: true })
  mkdirSync(fresh, { recursive: true })
  mkdirSync(bin, { recursive: true })
  writeFileSync(join(root, 'dist/package.json'), '{"type":"commonjs"}\n')
  const services = entries.filter(entry => /^sensu-kvm-(agent|server)\.ts$/.test(basename(entry)))
  const others = entries.filter(entry => !services.includes(entry))
  const done = await Promise.allSettled([
    bundle(others, fresh),
    ...services.map(service => buildService(join(root, service), fresh, surroundings, bundling)),
  ])
  const names = new Set(entries.map(entry => basename(entry, '.ts')))
  // NAME.bundle before NAME
  for (const file of readdirSync(fresh).sort().reverse()) {
    const name = basename(file, '.js')
    const check = checks.find(check => check.name === name)
    if (check) addCodeCache(join(fresh, file), check.local ? (localWarmUps.get(name) ?? ['--timeout', '5']) : [])
    else if (handlers.some(handler => handler.name === name)) {
      const sample = join(root, 'generated/samples', `${name}.json`)
      addCodeCache(join(fresh, file), ['--dry-run', '--config', sample], warmUpEvent)
    }
    if (!name.endsWith('.bundle')) chmodSync(join(fresh, file), 0o755)
    renameSync(join(fresh, file), join(bin, name))
  }
  const native = join(root, `node_modules/@koromix/koffi-linux-${process.arch}/linux_${process.arch}`, nativeFile)
  if (existsSync(native)) {
    names.add(nativeFile)
    copyFileSync(native, join(fresh, nativeFile))
    renameSync(join(fresh, nativeFile), join(bin, nativeFile))
  }
  for (const service of services) names.add(`${basename(service, '.ts')}.bundle`)
  for (const { name } of checks.filter(({ rubyLine }) => rubyLine)) {
    const link = `${name}.rb`
    names.add(link)
    if (!existsSync(join(bin, link))) symlinkSync(name, join(bin, link))
  }
  for (const name of readdirSync(bin)) {
    if (!names.has(name)) rmSync(join(bin, name))
  }
  rmSync(fresh, { recursive: true, force: true })
  // Already printed by the bundler.
  if (done.some(({ status }) => status === 'rejected')) process.exitCode = 1
}

const modules = sources.flatMap(modulesBelow)
await transpile(modules)
for (const folder of sources) {
  removeStale(
    folder,
    modules.filter(module => module.startsWith(`${folder}/`)),
  )
}

const generator = join(root, 'build/scripts/generate.js')
const { generate } = await import(pathToFileURL(generator).href)
const { problems, checks, handlers } = await generate(root)
const generated = modulesBelow('generated')
await transpile(generated)
removeStale('generated', generated)
await fillBin(
  generated.filter(file => file.startsWith('generated/bin/')),
  checks,
  handlers,
)

for (const problem of problems) console.error(`build: ${problem}`)
if (problems.length > 0) process.exitCode = 1
