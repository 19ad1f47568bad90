import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { build } from 'esbuild'

/** The oldest that are looked after; nothing the page uses is newer. */
const browsers = ['chrome109', 'firefox115', 'safari16.4']

/** The module that holds the status page as texts, made of `server/status-page/`: the server needs no file beside its executable for it. */
export async function statusPageText(root: string): Promise<string> {
  const folder = join(root, 'server/status-page')
  const { outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: [join(folder, 'main.ts'), join(folder, 'status.css')],
    outdir: 'status-page',
    write: false,
    bundle: true,
    minify: true,
    format: 'iife',
    platform: 'browser',
    target: browsers,
    logLevel: 'warning',
  })
  const text = (ending: string) => outputFiles.find(({ path }) => path.endsWith(ending))?.text ?? ''
  const page = {
    html: readFileSync(join(folder, 'index.html'), 'utf8'),
    style: text('.css'),
    script: text('.js'),
  }
  return `import type { StatusPage } from '../server/api/status-page.js'

export const statusPage: StatusPage = ${JSON.stringify(page, undefined, 2)}
`
}
