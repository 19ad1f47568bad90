import { type Procedure, procedures } from '../libvirt/procedures.js'
import { busyGuests } from '../test/support/busy-guests.js'

// A process that plays a daemon with so many busy guests, which real guests on this machine could not make: every bulk statistics call gets a reply of
// full size. It also answers what virsh asks on its way to `domstats`. Tells its socket when it is ready; lets the
// counters grow at every message; ends with its parent.

const guests = Number(process.argv[2])
const { daemon, nextRound } = await busyGuests({ teardown: () => undefined }, guests)
daemon.on(procedures.supportsFeature, call => call.reply(writer => writer.i32(0)))
const closing: Procedure = procedures.connectClose
daemon.on(closing, call => call.reply())
process.on('message', () => {
  nextRound()
  process.send?.('next')
})
process.once('disconnect', () => daemon.remove().then(() => process.exit()))
process.send?.(daemon.socketPath)
