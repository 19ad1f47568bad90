// Starts one of each service, prints which processes and folders that made, and waits to be ended in whatever way.
import { startGuest } from '../../scripts/services/guest.js'
import { startLibvirtd } from '../../scripts/services/libvirtd.js'
import { cacheDirectory } from '../../scripts/services/process.js'
import { startRabbitmq } from '../../scripts/services/rabbitmq.js'
import { startRedis } from '../../scripts/services/redis.js'
import { guestImage } from '../support/services.js'

const [redis, broker, daemon] = await Promise.all([
  startRedis(),
  startRabbitmq(),
  startLibvirtd({ cacheDirectory: cacheDirectory() }),
])
await startGuest(daemon, { name: 'held', image: await guestImage(), agent: false })
const pids = [redis.pid(), broker.pid(), broker.portMapperPid(), daemon.keeperPid, ...daemon.processes()]
const directories = [redis.directory, broker.directory, daemon.directory]
process.stdout.write(`${JSON.stringify({ pids, directories })}\n`)
if (process.argv[2] === 'fail') throw new Error('an error nobody caught')
if (process.argv[2] === 'wait') setInterval(() => {}, 60_000)
