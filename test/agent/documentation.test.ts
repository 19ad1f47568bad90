import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { agentSettings } from '../../agent/settings.js'
import { configurationPage } from '../../scripts/configuration-docs.js'

const docs = fileURLToPath(new URL('../../../docs/', import.meta.url))

t.test('docs/configuration.md is what the settings say; `npm run docs` renews it', async t => {
  t.equal(readFileSync(`${docs}configuration.md`, 'utf8'), configurationPage())
  for (const { key } of agentSettings) t.match(configurationPage(), `\`${key}\``)
})

t.test('the links of the hand-written pages lead somewhere', async t => {
  for (const page of ['configuration.md', 'differences.md']) {
    const links = [...readFileSync(`${docs}${page}`, 'utf8').matchAll(/\]\(([^)#]+)\)/g)].map(([, link = '']) => link)
    for (const link of links) t.doesNotThrow(() => readable(new URL(link, `file://${docs}`)), `${page}: ${link}`)
  }
})

function readable(url: URL): void {
  try {
    readFileSync(url)
  } catch (error) {
    // a folder is there, too
    if (!(error instanceof Error && 'code' in error && error.code === 'EISDIR')) throw error
  }
}
