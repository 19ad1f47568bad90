// A process that fills a spool until it is killed, and prints how many records are safe.
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Spool } from '../../agent/spool.js'

const [directory = ''] = process.argv.slice(2)
const spool = await Spool.open({ directory })
for (let written = 0; ; ) {
  for (let batch = 0; batch < 50; batch++) spool.append(Buffer.from(`${written++} ${'x'.repeat(400)}`))
  await spool.flush()
  process.stdout.write(`${written}\n`)
  await nextTurn()
}
