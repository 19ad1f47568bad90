import { join } from 'node:path'
import t from 'tap'
import { projectDirectory, run } from '../../scripts/services/process.js'

const bootstrap = join(projectDirectory(), 'scripts/bootstrap.mjs')

for (const args of [[], ['nonsense']])
  t.test(`asked for "${args.join(' ')}" it names what it can do`, async t => {
    const failure = await run(process.execPath, [bootstrap, ...args]).catch((error: unknown) => error)
    t.match(failure, { status: 2, stderr: /^sensu-kvm: usage: .* start\|test\|bench\n$/ })
  })
