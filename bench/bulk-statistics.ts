import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Host } from '../libvirt/host.js'
import { median, quantile, type Row, runProcess, sample, watchLoop } from './measure.js'
import { startReplay } from './replay.js'

const guestCounts = [1, 100, 1000]

/** Bulk statistics of 1, 100 and 1,000 guests against `virsh domstats`, over the same daemon each. */
export async function benchBulkStatistics(libvirtSocket: string): Promise<Row[]> {
  const rows: Row[] = []
  for (const count of guestCounts) rows.push(await overTestDriver(libvirtSocket, count))
  for (const count of guestCounts) rows.push(await overReplay(count))
  return rows
}

/** libvirt's test driver has any number of guests, but tells only their state. */
async function overTestDriver(libvirtSocket: string, count: number): Promise<Row> {
  const directory = mkdtempSync(join(tmpdir(), 'sk-bench-'))
  const file = join(directory, 'node.xml')
  writeFileSync(file, testDriverXml(count))
  try {
    const row = await compare(`test+unix://${file}?socket=${libvirtSocket}`, count)
    const note = `virsh's time has the daemon reading the file of guests for each process; ours reads it once, on connecting; ${row.note}`
    return { ...row, subject: `bulk statistics, ${guests(count)}, test driver`, note }
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/** A reply of full size (about 90 figures a guest) that a stand-in daemon repeats. */
async function overReplay(count: number): Promise<Row> {
  const replay = await startReplay(count)
  try {
    const row = await compare(`qemu+unix:///system?socket=${replay.socketPath}`, count)
    return { ...row, subject: `bulk statistics, ${guests(count)}, full-size reply`, target: 'loop lag <= 10 ms' }
  } finally {
    await replay.stop()
  }
}

async function compare(uri: string, count: number): Promise<Omit<Row, 'subject'>> {
  const host = Host.open(uri, { readOnly: true })
  const ask = async () => {
    const { guests: found } = await host.domainStats()
    if (found.length !== count) throw new Error(`${uri} told of ${found.length} guests instead of ${count}`)
  }
  try {
    await sample(20, ask)
    const lags: number[] = []
    const ours = await sample(count > 100 ? 40 : 200, async () => {
      const lag = watchLoop()
      await ask()
      lags.push(lag())
    })
    const theirs = await sample(5, () => runProcess('virsh', ['-q', '-r', '-c', uri, 'domstats']))
    const loopLagMs = median(lags)
    const note = `loop lag is the longest stretch of the median call; of all ${lags.length} calls ${quantile(lags, 1).toFixed(1)} ms`
    return {
      unit: 'ms',
      ours: median(ours),
      peer: 'virsh domstats, a process',
      theirs: median(theirs),
      loopLagMs,
      note,
    }
  } finally {
    await host.close()
  }
}

function testDriverXml(count: number): string {
  const domain = (index: number) => `<domain type='test'><name>guest-${index}</name><memory>65536</memory><vcpu>1</vcpu>
    <os><type arch='x86_64'>hvm</type></os></domain>`
  return `<node>${Array.from({ length: count }, (_, index) => domain(index)).join('\n')}</node>`
}

/** `1 guest`, `1,000 guests`. */
export function guests(count: number): string {
  return count === 1 ? '1 guest' : `${count.toLocaleString('en')} guests`
}
