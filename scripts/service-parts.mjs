// Makes the executable of a long-running service: a loader, and a file with the program in parts, of which those are in memory that were needed.
import { readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { Script } from 'node:vm'
import { build, transform } from 'esbuild'

/** Around each part, as Node wraps a CommonJS file; `importModule` does what only a module of Node's own loading can. */
const head = '(function (exports, require, module, __filename, bundle, importModule) {'
const tail = '\n})'

/**
 * The executable. The file beside it begins with the length of its table of contents (4 bytes) and that table: for each part its name, the length of its
 * source, and that of the code that V8 compiled of it, the program itself first. Then come source and code of each. Node of another version than
 * the one that built it refuses the code and compiles the source. The file stays open: what is loaded later is of the same build, whatever is
 * installed meanwhile.
 * @param {string} bundle
 */
const loaderText = bundle => `#!/usr/bin/env node
// Made by the build: the program, in parts, and what V8 compiled of them, are in the file NAME.bundle beside this one.
const fs = require('node:fs')
const { Script } = require('node:vm')
${bundle}
const file = __filename + '.bundle'
const fd = fs.openSync(file, 'r')
// one buffer for the start, which is gone with the first garbage, instead of many that leave holes
let buffer = Buffer.allocUnsafeSlow(1 << 19)
setImmediate(() => { buffer = Buffer.alloc(0) })
function read(position, length) {
  const data = length <= buffer.length ? buffer.subarray(0, length) : Buffer.allocUnsafeSlow(length)
  fs.readSync(fd, data, 0, length, position)
  return data
}
const tableLength = read(0, 4).readUInt32LE()
const parts = new Map()
let end = 4 + tableLength
for (const [name, source, code] of JSON.parse(read(4, tableLength).latin1Slice())) {
  parts.set(name, { start: end, source, code, module: undefined })
  end += source + code
}
function load(name) {
  const base = name.slice(name.lastIndexOf('/') + 1)
  const part = parts.get(base)
  if (part === undefined) return require(name)
  if (part.module) return part.module.exports
  const module = (part.module = { exports: {} })
  const source = read(part.start, part.source).latin1Slice()
  const cachedData = read(part.start + part.source, part.code)
  const script = new Script(source, { filename: file + '/' + base, cachedData })
  script.runInThisContext()(module.exports, load, module, __filename, bundle, specifier => import(specifier))
  return module.exports
}
load('./' + parts.keys().next().value)
`

/** Code that imports at run time uses what the loader gives it: code that V8 takes from its cache cannot import. @type {import('esbuild').Plugin} */
const importThroughLoader = {
  name: 'import through the loader',
  setup(hooks) {
    hooks.onLoad({ filter: /[/]agent[/]import-module\.ts$/ }, () => ({
      contents: 'const given = importModule; export { given as importModule }',
    }))
  },
}

/** Errors in logs are called by their names, at no cost in memory (esbuild's `keepNames` has one). */
const named = { minify: false, minifySyntax: true, minifyWhitespace: true }

/**
 * Writes `NAME` and `NAME.bundle` for a service `NAME.ts`. Parts of their own are what the program imports with `import()`, what its entry file loads with
 * `require`, and what several of them have in common. The code compiled is what every start needs and no more: functions that are never called
 * take no memory.
 * @param {string} entry path of the entry file
 * @param {string} outdir
 * @param {string} bundle declaration of the constant of that name
 * @param {import('esbuild').BuildOptions} options
 */
export async function buildService(entry, outdir, bundle, options) {
  const required = [...readFileSync(entry, 'utf8').matchAll(/require\('(.+?)\.js'\)/g)].map(([, path = '']) => path)
  const { outputFiles } = await build({
    ...options,
    ...named,
    entryPoints: [entry, ...required.map(path => join(dirname(entry), `${path}.ts`))],
    entryNames: '[name]',
    outdir,
    write: false,
    splitting: true,
    format: 'esm',
    external: required.map(path => `${path}.js`),
    plugins: [...(options.plugins ?? []), importThroughLoader],
  })
  const parts = await Promise.all(
    outputFiles.map(async ({ path, text }) => {
      const { platform, target } = options
      const supported = { 'dynamic-import': false }
      const { code } = await transform(text, { ...named, platform, target, supported, format: 'cjs' })
      const source = Buffer.from(head + code + tail, 'latin1')
      const compiled = new Script(source.toString('latin1'), { filename: basename(path) }).createCachedData()
      return { name: basename(path), source, compiled }
    }),
  )
  const name = basename(entry, '.ts')
  parts.sort((a, b) => Number(b.name === `${name}.js`) - Number(a.name === `${name}.js`))
  const table = JSON.stringify(parts.map(({ name, source, compiled }) => [name, source.length, compiled.length]))
  const length = Buffer.alloc(4)
  length.writeUInt32LE(table.length)
  const contents = parts.flatMap(({ source, compiled }) => [source, compiled])
  writeFileSync(join(outdir, `${name}.bundle`), Buffer.concat([length, Buffer.from(table), ...contents]))
  writeFileSync(join(outdir, name), loaderText(bundle))
}
