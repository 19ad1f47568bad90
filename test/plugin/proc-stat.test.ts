import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { readCpuTicks } from '../../plugin/proc-stat.js'

t.test("guests' time is part of user time and not counted twice", async t => {
  const path = join(t.testdir(), 'stat')
  writeFileSync(
    path,
    'cpu  45765 1 20968 382722 7352 2 679 5144 30000 1\ncpu0 21824 0 9771 194689 2225 0 174 2577 0 0\n',
  )
  t.same(await readCpuTicks(path), {
    stealTicks: 5144,
    totalTicks: 45765 + 1 + 20968 + 382722 + 7352 + 2 + 679 + 5144,
  })
})

t.test('what is not /proc/stat of Linux gives nothing', async t => {
  const directory = t.testdir({ old: 'cpu  1 2 3 4\n', other: 'cpux 1 2 3 4 5 6 7 8\n', empty: '' })
  for (const file of ['old', 'other', 'empty', 'missing']) {
    t.equal(await readCpuTicks(join(directory, file)), undefined, file)
  }
})
