import { type Browser, type BrowserContextOptions, chromium, type Locator, type Page } from 'playwright-core'
import type { Test } from 'tap'

/** How long the browser waits for what must come. */
const PATIENCE_MS = 20_000

/** Nothing that asks the network for more than the page does, and what a machine without a screen, or a run as root, needs. */
const switches = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync']
switches.push('--disable-background-networking', '--disable-component-update', '--disable-dev-shm-usage')

/** Debian's Chromium, without a screen, for this test file. */
export async function startBrowser(t: Test): Promise<Browser> {
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: switches })
  t.teardown(() => browser.close())
  return browser
}

/** A page of its own. What it reports as an error fails the test, but for requests without an answer, which some tests are about. */
export async function openPage(t: Test, browser: Browser, options: BrowserContextOptions = {}): Promise<Page> {
  const page = await browser.newPage(options)
  page.setDefaultTimeout(PATIENCE_MS)
  const errors: string[] = []
  page.on('pageerror', error => errors.push(error.message))
  page.on('console', message => {
    const isOurs = message.type() === 'error' && !message.text().startsWith('Failed to load resource')
    if (isOurs) errors.push(message.text())
  })
  t.teardown(async () => {
    await page.close()
    if (errors.length > 0) throw new Error(`the page reports: ${errors.join('; ')}`)
  })
  return page
}

/** What somebody sees of it, once there is something. */
export async function textOf(locator: Locator): Promise<string> {
  await locator.first().waitFor()
  return (await locator.allInnerTexts()).join('\n')
}
