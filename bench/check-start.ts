import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { median, type Row, runProcess, samplePairs } from './measure.js'

const runs = 31

/** A check executable's whole process, against an empty node process and against the recipe's bash and virsh. */
export async function benchCheckStart(root: string, uri: string, guest: string): Promise<Row[]> {
  const directory = mkdtempSync(join(tmpdir(), 'sk-bench-'))
  const empty = join(directory, 'empty.cjs')
  writeFileSync(empty, '')
  const check = join(root, 'dist/bin/check-kvm-state')
  const ours = () => runProcess(process.execPath, [check, '--uri', uri, '--guest', guest])
  try {
    const node = await samplePairs(runs, ours, () => runProcess(process.execPath, [empty]))
    const bash = await samplePairs(runs, ours, () => runProcess(join(root, 'bench/recipe-check.sh'), [uri, guest]))
    const more = median(node.ours) - median(node.theirs)
    const moreAtBest = Math.min(...node.ours) - Math.min(...node.theirs)
    return [
      {
        subject: 'check-kvm-state, whole process',
        unit: 'ms',
        ours: median(node.ours),
        peer: 'node, an empty file',
        theirs: median(node.theirs),
        loopLagMs: undefined,
        target: 'empty node + 25 ms',
        note: `${more.toFixed(1)} ms more than an empty node process by the medians, ${moreAtBest.toFixed(1)} ms by the quickest runs`,
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
