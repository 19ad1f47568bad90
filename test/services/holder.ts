// Starts services, prints which processes and folders that made, and waits to be ended in whatever way.
// Arguments: `all` services or only `redis`; then `wait`, `fail` or `exit`.
import { startGuest } from '../../scripts/services/guest.js'
import { startLibvirtd } from '../../scripts/services/libvirtd.js'
import { cacheDirectory } from '../../scripts/services/process.js'
import { startRabbitmq } from '../../scripts/services/rabbitmq.js'
import { startRedis } from '../../scripts/services/redis.js'
import { guestImage } from '../support/services.js'

const [what, end] = process.argv.slice(2)
const redis = await startRedis()
const pids = [redis.pid()]
const directories = [redis.directory]
if (what === 'all') {
  const [broker, daemon] = await Promise.all([startRabbitmq(), startLibvirtd({ cacheDirectory: cacheDirectory() })])
  await startGuest(daemon, { name: 'held', image: await guestImage(), agent: false })
  pids.push(broker.pid(), broker.portMapperPid(), daemon.keeperPid, ...daemon.processes())
  directories.push(broker.directory, daemon.directory)
}
process.stdout.write(`${JSON.stringify({ pids, directories })}\n`)
if (end === 'fail') throw new Error('an error nobody caught')
if (end === 'wait') setInterval(() => {}, 60_000)
