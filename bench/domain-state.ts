import { Host } from '../libvirt/host.js'
import { median, quantile, type Row, runProcess, sample, watchLoop } from './measure.js'

/** One domain-state call over an open connection against a `virsh domstate` process, on a real guest. */
export async function benchDomainState(uri: string, guest: string): Promise<Row[]> {
  const host = Host.open(uri, { readOnly: true })
  try {
    const domain = await host.domain(guest)
    await sample(500, () => host.domainState(domain))
    const lag = watchLoop()
    const ours = await sample(3000, () => host.domainState(domain))
    const loopLagMs = lag()
    const theirs = await sample(15, () => runProcess('virsh', ['-q', '-r', '-c', uri, 'domstate', guest]))
    return [
      {
        subject: 'domain state, one call (p50)',
        unit: 'ms',
        ours: median(ours),
        peer: 'virsh domstate, a process',
        theirs: median(theirs),
        loopLagMs,
        target: 'p50 <= 0.2 ms',
        note: `p95 ${quantile(ours, 0.95).toFixed(3)} ms, p99 ${quantile(ours, 0.99).toFixed(3)} ms over 3,000 calls`,
      },
    ]
  } finally {
    await host.close()
  }
}
