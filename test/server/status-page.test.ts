import type { Page } from 'playwright-core'
import t from 'tap'
import { stringifyJson } from '../../sensu/json.js'
import { epochSeconds } from '../../sensu/results.js'
import type { JsonObject } from '../../sensu/types.js'
import { openPage, startBrowser, textOf } from './browser.js'
import { ask } from './http.js'
import { apiPort, type ServerProcess, Site, until } from './site.js'

const PHONE = { width: 390, height: 844 }
const hostile = '<img src=x onerror="document.title=\'hacked\'"><script>document.title="hacked"</script>'

const site = await Site.open(t)
const browser = await startBrowser(t)
const server = await serve({})
const port = await apiPort(server)
t.beforeEach(() => clear())

function serve(api: JsonObject): Promise<ServerProcess> {
  return site.serve(site.settings({ api: { bind: '127.0.0.1', port: 0, ...api } }), [])
}

/** Everything but what servers know of themselves, and the status of nothing. */
async function clear(): Promise<void> {
  const keys = (await site.redis.keys('*')).filter(key => !/^(lock|task|server)s?\b/.test(key))
  if (keys.length > 0) await site.redis.del(...keys)
  await site.calls(0)
}

function now(): number {
  return epochSeconds(Date.now())
}

function keepalive(name: string): Promise<void> {
  const client = { name, address: '10.0.0.5', subscriptions: ['base'], version: '1.9.0', timestamp: now() }
  return site.publish('keepalives', client)
}

/** One result after the other of a guest that a host reports for. */
async function guestResults(host: string, guest: string, statuses: number[], output: string): Promise<void> {
  const check = { name: 'state_check', source: guest, executed: now(), output }
  for (const status of statuses) await site.publish('results', { client: host, check: { ...check, status } })
  await until(
    'the last result',
    async () => (await site.redis.llen(`history:${guest}:state_check`)) === statuses.length,
  )
}

async function show(page: Page, at = port): Promise<void> {
  await page.goto(`http://127.0.0.1:${at}/`)
  await page.locator('.group').first().waitFor()
}

function problem(page: Page, client: string) {
  return page.locator('#problems .problem', { has: page.getByRole('link', { name: client, exact: true }) })
}

t.test('an event shows what is wrong where, since when, how often, and how it was before', async t => {
  await keepalive('kvm1')
  await guestResults('kvm1', 'web1', [0, 0, 1, 2, 2, 2], 'web1: paused by an I/O error\nvda: no space left on device')
  await guestResults('kvm1', 'web2', [1], 'web2: paused (user)')
  const event = JSON.parse(String(await site.redis.hget('events:web1', 'state_check')))
  const since = { ...event, last_state_change: now() - 2 * 3600 - 5 * 60 }
  await site.redis.hset('events:web1', 'state_check', stringifyJson(since))
  const page = await openPage(t, browser)
  await show(page)
  const shown = await page.locator('#problems .problem').allInnerTexts()
  t.equal(shown.length, 2)
  t.match(shown[0], /^CRITICAL\s+web1 on kvm1 .*state_check\s+for 2 h 5 min · ×3/, 'the critical one comes first')
  t.match(shown[1], /^WARNING\s+web2 on kvm1/)
  const first = problem(page, 'web1')
  t.equal(
    await first.locator('.sparkline').getAttribute('aria-label'),
    'Last statuses, newest last: OK, OK, WARNING, CRITICAL, CRITICAL, CRITICAL',
  )
  t.equal(await first.locator('pre').isVisible(), false)
  await first.locator('summary').click()
  t.equal(await textOf(first.locator('pre')), 'vda: no space left on device')
  t.equal(await page.title(), '(2) sensu-kvm')
  t.match(await textOf(page.locator('#totals')), /1 critical\s+1 warning\s+3 clients/)
})

t.test('guests are grouped under their host, and show their results when asked to', async t => {
  await keepalive('kvm1')
  await keepalive('kvm2')
  for (const guest of ['web1', 'web2']) await guestResults('kvm1', guest, [0], `${guest}: running`)
  await guestResults('kvm2', 'db1', [0, 2], 'db1: crashed')
  const page = await openPage(t, browser)
  await show(page)
  const groups = await page.locator('.group').allInnerTexts()
  t.match(groups[0], /^kvm2\s+1 guest, 1 with problems · 10\.0\.0\.5 · keepalive \d+ s ago\s+db1$/)
  t.match(groups[1], /^kvm1\s+2 guests[^\n]*\s+web1\s+web2$/)
  await page.getByRole('link', { name: 'web2: OK' }).click()
  t.match(await textOf(page.locator('.panel .result')), /^OK\s+state_check\s+\d+ s ago\s+Silence\s+web2: running/)
  t.match(page.url(), /#client=web2$/)
  await page.getByRole('link', { name: 'Close' }).click()
  await page.locator('.panel').waitFor({ state: 'detached' })
  await page.goto(`http://127.0.0.1:${port}/#client=db1`)
  t.match(await textOf(page.locator('.panel .result')), /^CRITICAL/, 'a link from elsewhere opens a client')
})

t.test('a guest with an agent of its own stands with the host that sent the newest results of it', async t => {
  await keepalive('web1')
  const own = { name: 'cpu', status: 0, output: '"origin":"elsewhere"', executed: now() }
  await site.publish('results', { client: 'web1', check: own })
  for (const [host, name, age] of [
    ['kvm2', 'memory_check', 0],
    ['kvm1', 'state_check', 60],
  ] as const) {
    const check = { name, source: 'web1', status: 0, output: '', executed: now() - age }
    await site.publish('results', { client: host, check })
    await site.stored(`result:web1:${name}`)
  }
  const { body } = await ask(port, 'GET', '/status/clients?limit=10&offset=0')
  t.match(JSON.parse(body), [{ name: 'web1', host: 'kvm2', address: '10.0.0.5' }])
})

t.test('what clients send is text, never markup', async t => {
  await keepalive('kvm1')
  await guestResults('kvm1', 'web1', [2], `${hostile}\n${hostile}`)
  const event = JSON.parse(String(await site.redis.hget('events:web1', 'state_check')))
  // the server refuses such names, but somebody else may write to Redis
  const evil = { ...event, client: { ...event.client, name: hostile }, check: { ...event.check, name: hostile } }
  await site.redis.hset('events:web1', 'evil', stringifyJson(evil))
  await site.redis.hset('events:web1', 'shapeless', '{"client":5,"check":[],"occurrences":{}}')
  const silence = { subscription: 'client:web1', check: 'other', reason: hostile, creator: hostile }
  await ask(port, 'POST', '/silenced', { body: JSON.stringify(silence) })
  const page = await openPage(t, browser)
  await show(page)
  for (const summary of await page.locator('.problem summary').all()) await summary.click()
  const text = await textOf(page.locator('main'))
  t.equal(text.split('<img src=x').length - 1 >= 8, true, 'everything hostile is there to be read')
  t.equal(await page.locator('img, main script').count(), 0)
  t.equal(await page.title(), '(2) sensu-kvm')
  const other = await browser.newPage()
  t.teardown(() => other.close())
  await other.goto(`http://127.0.0.1:${port}/`)
  const refused = await other.evaluate(`try { document.body.innerHTML = '<b>x</b>' } catch (error) { error.name }`)
  t.equal(refused, 'TypeError', 'the policy forbids what would make markup of text')
})

t.test('a check is silenced for an hour with a reason, and no longer', async t => {
  await guestResults('kvm1', 'web1', [2], 'web1: crashed')
  const page = await openPage(t, browser)
  await show(page)
  await page.getByRole('button', { name: 'Silence state_check on web1' }).click()
  const dialog = page.getByRole('dialog', { name: 'Silence' })
  t.equal(await dialog.getByLabel('state_check on web1').isChecked(), true)
  await dialog.getByLabel('Reason').fill(hostile)
  await page.keyboard.press('Enter')
  await page.locator('#silenced .problem').waitFor()
  const key = 'silence:client:web1:state_check'
  t.match(JSON.parse(await site.stored(key)), { reason: hostile, expire_on_resolve: false, creator: 'status page' })
  t.ok((await site.redis.ttl(key)) > 3500)
  t.equal(await page.locator('#problems .problem').count(), 0)
  t.match(await textOf(page.locator('#silenced')), /state_check on web1\s+\d+ min left|1 h left/)
  await page.getByRole('button', { name: 'Unsilence state_check on web1' }).click()
  await problem(page, 'web1').waitFor()
  t.equal(await site.redis.exists(key), 0)
  t.equal(await page.locator('#silenced').isVisible(), false)
})

t.test('a whole client, or a check everywhere, can be silenced, also until it is resolved', async t => {
  await guestResults('kvm1', 'web1', [2], 'web1: crashed')
  const page = await openPage(t, browser)
  await show(page)
  for (const scope of ['everything on web1', 'state_check everywhere']) {
    await page.getByRole('button', { name: 'Silence state_check on web1' }).click()
    await page.getByLabel(scope).check()
    await page.getByLabel('until it is resolved').check()
    await page.getByRole('button', { name: 'Silence', exact: true }).click()
    await page.getByRole('button', { name: `Unsilence ${scope}` }).waitFor()
  }
  for (const id of ['client:web1:*', '*:state_check']) {
    t.match(JSON.parse(await site.stored(`silence:${id}`)), { id, expire_on_resolve: true })
    t.equal(await site.redis.ttl(`silence:${id}`), -1)
  }
})

t.test('what cannot be silenced is told, and the dialog stays', async t => {
  await guestResults('kvm1', 'web1', [2], 'web1: crashed')
  const page = await openPage(t, browser)
  await show(page)
  await page.route('**/silenced', route => route.fulfill({ status: 400 }))
  await page.getByRole('button', { name: 'Silence state_check on web1' }).click()
  await page.getByRole('button', { name: 'Silence', exact: true }).click()
  const dialog = page.getByRole('dialog', { name: 'Silence' })
  t.equal(await textOf(dialog.getByRole('alert')), 'Not silenced: the server answered 400')
  await page.keyboard.press('Escape')
  t.equal(await dialog.isVisible(), false)
})

t.test('an event is resolved', async t => {
  await guestResults('kvm1', 'web1', [2], 'web1: crashed')
  const page = await openPage(t, browser)
  await show(page)
  await page.getByRole('button', { name: 'Resolve state_check on web1' }).click()
  await page.getByText('Nothing is wrong.').waitFor()
  t.equal(await site.redis.exists('events:web1'), 0)
  const calls = (await site.calls(2)).map(({ stdin }) => JSON.parse(stdin).action).sort()
  t.strictSame(calls, ['create', 'resolve'])
})

t.test('the page fits a phone, whatever the names', async t => {
  await keepalive('kvm1')
  await keepalive(`hypervisor-${'0123456789'.repeat(8)}.example.org`)
  await guestResults(
    'kvm1',
    `guest-${'0123456789'.repeat(9)}`,
    [0, 2],
    `no_space_${'x'.repeat(500)}\n${'y'.repeat(500)}`,
  )
  await guestResults('kvm1', 'web1', [1], 'web1: paused')
  await ask(port, 'POST', '/silenced', { body: JSON.stringify({ check: 'c'.repeat(100), reason: 'r'.repeat(200) }) })
  const page = await openPage(t, browser, { viewport: PHONE })
  await show(page)
  const width = () => page.evaluate('document.documentElement.scrollWidth')
  t.equal(await width(), PHONE.width)
  await page.locator('.problem summary').first().click()
  await page.getByRole('link', { name: /^guest-.*problem$/ }).click()
  await page.locator('.panel .result summary').first().click()
  t.equal(await width(), PHONE.width, 'also with everything open')
  await page.getByRole('button', { name: 'Silence state_check on web1' }).click()
  const box = await page.getByRole('dialog').boundingBox()
  t.ok(box && box.x >= 0 && box.x + box.width <= PHONE.width, 'also the dialog')
})

t.test('the keyboard reaches the filter, which leaves what has all its words', async t => {
  await keepalive('kvm1')
  await guestResults('kvm1', 'web1', [2], 'web1: crashed')
  await guestResults('kvm1', 'db1', [2], 'db1: paused')
  const page = await openPage(t, browser)
  await show(page)
  await page.keyboard.press('/')
  await page.keyboard.type('kvm1 PAUSED')
  t.match(await page.locator('#problems .problem .client').allInnerTexts(), ['db1'])
  await page.getByRole('searchbox').fill('web')
  t.match(await page.locator('.guests .name').allInnerTexts(), ['web1'])
  await page.getByRole('searchbox').fill('nobody')
  t.equal(await page.getByText('Nothing of 2 problems fits the filter.').isVisible(), true)
})

t.test('a server that is gone is told with the time, and what it has is shown when it is back', async t => {
  const other = await serve({})
  const at = await apiPort(other)
  await guestResults('kvm1', 'web1', [2], 'web1: crashed')
  const page = await openPage(t, browser)
  await show(page, at)
  await other.stop()
  await page.locator('#refresh').click()
  const connection = page.locator('#connection')
  await connection.getByText(/^not connected since .*: the server cannot be reached; next try at /).waitFor()
  t.equal(await page.title(), 'not connected – sensu-kvm')
  t.equal(await problem(page, 'web1').isVisible(), true, 'what was known stays')
  await guestResults('kvm1', 'web2', [2], 'web2: crashed')
  await serve({ port: at })
  await connection.getByText(/^updated /).waitFor()
  await problem(page, 'web2').waitFor()
})

t.test('without Redis the page is there, and says what is missing', async t => {
  await guestResults('kvm1', 'web1', [2], 'web1: crashed')
  await site.redisServer.kill()
  t.teardown(() => site.redisServer.restart())
  await server.log('reconnecting to redis')
  const page = await openPage(t, browser)
  await page.goto(`http://127.0.0.1:${port}/`)
  await page
    .locator('#connection')
    .getByText(/^not connected since .*: the server is not connected to redis/)
    .waitFor()
  await site.redisServer.restart()
  await problem(page, 'web1').waitFor()
})

t.test('with a password, the browser asks for it once', async t => {
  await guestResults('kvm1', 'web1', [2], 'web1: crashed')
  const at = await apiPort(await serve({ user: 'admin', password: 'a:b' }))
  t.match((await ask(at, 'GET', '/')).status_line, /401/)
  const page = await openPage(t, browser, { httpCredentials: { username: 'admin', password: 'a:b' } })
  await show(page, at)
  await page.getByRole('button', { name: 'Resolve state_check on web1' }).click()
  await page.getByText('Nothing is wrong.').waitFor()
})

t.test('10,000 clients with 3,000 events: all are counted, few are drawn, and the page stays quick', async t => {
  await seedLargeSite(500, 19, 6)
  const page = await openPage(t, browser)
  await show(page)
  await page.locator('#totals').getByText('10000 clients').waitFor()
  t.match(await textOf(page.locator('#totals')), /3000 critical/)
  t.equal(await page.locator('#problems .problem').count(), 100)
  t.equal(await page.locator('.group').count(), 50)
  await page.getByRole('button', { name: 'Show 100 more of 2900' }).click()
  t.equal(await page.locator('#problems .problem').count(), 200)
  const took = await page.evaluate(`(() => {
    const filter = document.querySelector('#filter')
    const began = performance.now()
    filter.value = 'host-499 guest-499-3'
    filter.dispatchEvent(new Event('input'))
    return performance.now() - began
  })()`)
  t.ok(Number(took) < 1000, `a filter takes ${took} ms`)
  t.match(await page.locator('#problems .problem .client').allInnerTexts(), ['guest-499-3'])
  const linked = await openPage(t, browser)
  await linked.goto(`http://127.0.0.1:${port}/#client=guest-499-18`)
  const panel = linked.locator('.panel', { hasText: 'guest-499-18' })
  await panel.locator('.result').waitFor()
  await until('the panel to be in view', async () => {
    const box = await panel.boundingBox()
    return box !== null && box.y >= 0 && box.y + box.height <= 720
  })
})

/** Hosts and guests as a server would have stored them; of each host's guests the first few have an event. */
async function seedLargeSite(hosts: number, guests: number, failing: number): Promise<void> {
  for (let host = 0; host < hosts; host++) {
    const pipeline = site.redis.pipeline()
    const add = (name: string, more: JsonObject) => {
      const client = { name, address: 'unknown', subscriptions: [`client:${name}`], timestamp: now(), ...more }
      pipeline.sadd('clients', name).set(`client:${name}`, stringifyJson(client))
      return client
    }
    add(`host-${host}`, { version: '1.9.0' })
    for (let guest = 0; guest < guests; guest++) {
      const name = `guest-${host}-${guest}`
      const client = add(name, { keepalives: false, type: 'proxy' })
      const status = guest < failing ? 2 : 0
      const check = {
        name: 'state_check',
        source: name,
        status,
        output: `${name}: state`,
        executed: now(),
        origin: `host-${host}`,
      }
      pipeline.sadd(`result:${name}`, 'state_check').set(`result:${name}:state_check`, stringifyJson(check))
      const event = { id: name, client, check: { ...check, history: ['0', '2'] }, occurrences: 1, action: 'create' }
      if (status > 0) pipeline.hset(`events:${name}`, 'state_check', stringifyJson(event))
    }
    await pipeline.exec()
  }
}

t.test('the page and its parts come with a policy that allows nothing else', async t => {
  const asBrowser = { headers: { Accept: 'text/html,*/*;q=0.8' } }
  for (const [path, type] of [
    ['/', 'text/html'],
    ['/status.css', 'text/css'],
    ['/status.js', 'text/javascript'],
  ] as const) {
    const { status_line, headers } = await ask(port, 'GET', path, asBrowser)
    t.match(status_line, / 200 /)
    t.ok(headers.includes(`Content-type: ${type}; charset=utf-8`), path)
    t.ok(headers.some(header => /^Content-Security-Policy: default-src 'none'; script-src 'self';/.test(header)))
  }
  t.notMatch(
    (await ask(port, 'GET', '/')).body,
    /<script>|<style|style=|https?:/,
    'nothing inline, nothing from elsewhere',
  )
  t.match((await ask(port, 'GET', '/')).status_line, / 404 /, 'programs find at / what they found in Sensu')
})

t.test('a form of a page from elsewhere changes nothing', async t => {
  const page = await openPage(t, browser)
  const form = `<form method=post enctype=text/plain action=http://127.0.0.1:${port}/silenced>
    <input name='{"check":"state_check","reason":"' value='"}'><button>x</button></form>`
  await page.setContent(form)
  const [response] = await Promise.all([page.waitForResponse('**/silenced'), page.getByRole('button').click()])
  t.equal(response.request().postData()?.trim(), '{"check":"state_check","reason":"="}')
  t.equal(response.status(), 403)
  const silence = async (headers: Record<string, string>) =>
    (await ask(port, 'POST', '/silenced', { headers, body: '{"check":"other"}' })).status_line.split(' ')[1]
  const elsewhere = { Origin: 'http://elsewhere.example' }
  t.equal(await silence(elsewhere), '403')
  t.equal(await silence({ ...elsewhere, 'Content-Type': 'text/plain;charset=UTF-8' }), '403')
  t.equal(await silence({ ...elsewhere, 'Content-Type': 'application/json' }), '201', 'CORS decides on that')
  t.equal(await silence({ Origin: `http://127.0.0.1:${port}` }), '201')
  t.equal(await silence({}), '201', 'programs may send what they always sent')
  t.equal(await site.redis.exists('silence:*:state_check'), 0)
})
