import t, { type Test } from 'tap'
import { programs } from '../../generated/programs.js'
import { Host } from '../../libvirt/host.js'
import type { Context } from '../../plugin/check.js'
import { readOptions } from '../../plugin/options.js'
import type { Outcome } from '../../plugin/outcome.js'
import { firstLine, formats } from '../../plugin/output.js'
import { busyGuests } from '../support/busy-guests.js'
import { checkContext } from '../support/checks.js'

// Every check of guests there is, over many of them: one that is added is held to the same unless a list below says why not.

/** What bulk statistics do not tell: one call or more for each guest. */
const asksEachGuest: ReadonlySet<string> = new Set([
  'check-kvm-disk-error',
  'check-kvm-guest-agent',
  'check-kvm-guest-filesystem',
  'check-kvm-guest-frozen',
  'check-kvm-guest-interface',
  'check-kvm-guest-time',
  'check-kvm-guest-vcpus',
  'check-kvm-interface',
  'check-kvm-job',
])
/** Has nothing to say of a guest that is well. */
const silentWhenWell: ReadonlySet<string> = new Set(['check-kvm-job'])
/** Tells what libvirt itself knows; that QEMU hangs it learns from others on the same host. */
const asksNoQemu: ReadonlySet<string> = new Set(['check-kvm-state'])

const checks = programs.flatMap(({ check }) => (check.guests ? [check] : []))
type Check = (typeof checks)[number]

const mostBytesPerGuest = 2000
const mostBytesOfMetrics = 12_000
const mostFixedBytes = 200_000
const longestRunMs = 30_000

/** A host that tells how often it was asked about guests. */
function openHost(t: Test, uri: string) {
  const calls: string[] = []
  const host = Host.open(uri, { onCall: procedure => calls.push(procedure) })
  t.teardown(() => host.close())
  return { host, asked: () => calls.splice(0).filter(name => /DOMAIN|QEMU/.test(name)) }
}

async function runOnce(check: Check, host: Host, context: Context): Promise<Outcome> {
  return check.run(async () => host, readOptions(check.options, {}, []), context)
}

/** The guests of whom a result says anything. */
function guestsIn({ findings, metrics }: Outcome): Set<string> {
  return new Set(
    [...findings.map(({ guest }) => guest), ...metrics.map(({ labels }) => labels?.['guest'])].filter(
      name => name !== undefined,
    ),
  )
}

/** Whether a guest has as many numbers as the first one, which is well. */
function isComplete({ metrics }: Outcome, name: string): boolean {
  const numbersOf = (guest: string) =>
    metrics.filter(({ labels, value }) => labels?.['guest'] === guest && value !== undefined).length
  return numbersOf(name) > 0 && numbersOf(name) >= numbersOf('web1')
}

/** Whether a result says that something is wrong with a guest: in words, or (what judges nothing) as a number. */
function isBlamed({ findings, metrics }: Outcome, name: string): boolean {
  const silent = metrics.find(metric => metric.name === 'silent_time' && metric.labels?.['guest'] === name)
  return Number(silent?.value ?? 0) > 0 || findings.some(({ guest, status }) => guest === name && status !== 'OK')
}

function assertBounded(t: Test, check: Check, outcome: Outcome, count: number): void {
  const report = { name: check.name, outcome, scheme: 'h', timeMs: 1_700_000_000_000, verbose: true }
  t.ok(firstLine(report).length <= 255, `${check.name}: first line`)
  const perGuest = check.name === 'metrics-kvm' ? mostBytesOfMetrics : mostBytesPerGuest
  const bytes = Buffer.byteLength(formats.nagios(report))
  t.ok(bytes <= count * perGuest + mostFixedBytes, `${check.name}: ${bytes} bytes`)
}

t.ok(checks.length >= 8, `${checks.length} checks of guests`)

for (const count of [1, 100, 1000, 5000]) {
  t.test(
    `${count} guests: complete, bounded, and no more than two calls where bulk statistics hold the answer`,
    async t => {
      const { daemon, guests, nextRound } = await busyGuests(t, count)
      const names = guests.map(({ name }) => name)
      // Beyond 100 guests those that ask each of them are tried elsewhere: it takes as long as that takes.
      const tried = checks.filter(({ name }) => count <= 100 || !asksEachGuest.has(name))
      const runs = tried.map(check => ({
        check,
        context: checkContext({ timeLeftMs: () => longestRunMs }),
        ...openHost(t, daemon.uri),
      }))
      for (const { check, context, host } of runs) await runOnce(check, host, context)
      nextRound()
      for (const { check, context, host, asked } of runs) {
        asked()
        const startedMs = performance.now()
        const outcome = await runOnce(check, host, context)
        const tookMs = performance.now() - startedMs
        t.ok(tookMs < longestRunMs, `${check.name}: ${tookMs.toFixed(0)} ms`)
        // Of more guests a slow machine's answers take a second, which makes the host look for the one that is stuck.
        if (count <= 100 && !asksEachGuest.has(check.name)) {
          const calls = asked()
          t.ok(calls.length <= 2, `${check.name}: ${calls.slice(0, 5).join(', ')}`)
        }
        const said = guestsIn(outcome)
        const missing = silentWhenWell.has(check.name) ? [] : names.filter(name => !said.has(name))
        t.same(missing, [], `${check.name}: every guest`)
        assertBounded(t, check, outcome, count)
      }
    },
  )
}

t.test('100 guests, 3 stuck: the others are complete and on time, the stuck ones are named', async t => {
  const stuck = [7, 50, 99]
  const { daemon, guests, nextRound } = await busyGuests(t, 100, { stuck })
  const names = guests.map(({ name }) => name)
  const runs = checks.map(check => ({
    check,
    context: checkContext({ timeLeftMs: () => longestRunMs }),
    ...openHost(t, daemon.uri),
  }))
  // All at once, each with a host of its own: they wait for the same three guests.
  const round = () =>
    Promise.all(
      runs.map(async ({ check, context, host }) => {
        const startedMs = performance.now()
        const outcome = await runOnce(check, host, context)
        return { check, outcome, tookMs: performance.now() - startedMs }
      }),
    )
  const first = await round()
  nextRound()
  const second = await round()
  for (const [index, { check, outcome, tookMs }] of second.entries()) {
    const said = guestsIn(outcome)
    const missing = names.filter(
      (name, guest) => !said.has(name) && !(silentWhenWell.has(check.name) && !stuck.includes(guest)),
    )
    t.same(missing, [], `${check.name}: every guest`)
    const quiet = stuck.filter(
      guest => !isComplete(outcome, names[guest] ?? '') && !isBlamed(outcome, names[guest] ?? ''),
    )
    t.same(
      asksNoQemu.has(check.name) ? [] : quiet,
      [],
      `${check.name}: the stuck ones have all numbers, or it is said what is wrong`,
    )
    const firstMs = first[index]?.tookMs ?? 0
    t.ok(Math.max(firstMs, tookMs) < 12_000, `${check.name}: ${firstMs.toFixed(0)} and ${tookMs.toFixed(0)} ms`)
    assertBounded(t, check, outcome, 100)
  }
})
