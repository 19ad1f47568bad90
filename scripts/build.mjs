// Builds everything: type check aside, `build/` gets every module transpiled one to one (tests and scripts run from there),
// `dist/bin/` gets one self-contained CommonJS file per executable (CommonJS starts faster than ESM).
import { readdirSync, rmSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))
const folders = [
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

/** Every file with the given ending below a folder of the project, as paths relative to the root. */
function filesBelow(folder, ending) {
  const path = join(root, folder)
  try {
    statSync(path)
  } catch {
    return []
  }
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile() && entry.name.endsWith(ending))
    .map(entry => relative(root, join(entry.parentPath ?? entry.path, entry.name)))
}

rmSync(join(root, 'build'), { recursive: true, force: true })
await build({
  absWorkingDir: root,
  entryPoints: folders.flatMap(folder => filesBelow(folder, '.ts')),
  outdir: 'build',
  outbase: '.',
  format: 'esm',
  platform: 'node',
  target: 'node20',
  sourcemap: 'inline',
  logLevel: 'warning',
})
