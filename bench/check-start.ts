import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { childrenCpuMs, median, type Row, runProcess, samplePairs } from './measure.js'

/** So many that a median moves by a millisecond or two from one bench to the next on a machine that is not busy. */
const runs = 81
const bashRuns = 31

/** A check executable's whole process, against an empty node process and against the recipe's bash and virsh. */
export async function benchCheckStart(root: string, uri: string, guest: string): Promise<Row[]> {
  const directory = mkdtempSync(join(tmpdir(), 'sk-bench-'))
  const empty = join(directory, 'empty.cjs')
  writeFileSync(empty, '')
  const check = join(root, 'dist/bin/check-kvm-state')
  const ours = () => runProcess(process.execPath, [check, '--uri', uri, '--guest', guest])
  const cpuMs = { ours: 0, theirs: 0 }
  const counted = (whose: keyof typeof cpuMs, run: () => Promise<unknown>) => async () => {
    const before = childrenCpuMs()
    await run()
    cpuMs[whose] += childrenCpuMs() - before
  }
  try {
    const node = await samplePairs(
      runs,
      counted('ours', ours),
      counted('theirs', () => runProcess(process.execPath, [empty])),
    )
    const bash = await samplePairs(bashRuns, ours, () => runProcess(join(root, 'bench/recipe-check.sh'), [uri, guest]))
    const more = median(node.ours.map((ms, pair) => ms - (node.theirs[pair] ?? Number.NaN)))
    const moreAtBest = Math.min(...node.ours) - Math.min(...node.theirs)
    // the warm-up counts too
    const moreCpu = (cpuMs.ours - cpuMs.theirs) / (runs + 1)
    return [
      {
        subject: 'check-kvm-state, whole process',
        unit: 'ms',
        ours: median(node.ours),
        peer: 'node, an empty file',
        theirs: median(node.theirs),
        loopLagMs: undefined,
        target: 'empty node + 25 ms',
        note: `more than an empty node process, of ${runs} pairs: ${more.toFixed(1)} ms by the median pair, ${moreAtBest.toFixed(1)} ms by the quickest runs, ${moreCpu.toFixed(1)} ms of CPU; on a busy machine the time is that of waiting for a CPU`,
      },
      {
        subject: 'check-kvm-state, whole process',
        unit: 'ms',
        ours: median(bash.ours),
        peer: 'bash and virsh, the recipe',
        theirs: median(bash.theirs),
        loopLagMs: undefined,
      },
    ]
  } finally {
    rmSync(directory, { recursive: true })
  }
}
