import { parentPort, workerData } from 'node:worker_threads'
import { type Procedure, procedures } from '../libvirt/procedures.js'
import type { XdrWriter } from '../libvirt/xdr.js'
import { FakeLibvirtd } from '../test/support/fake-libvirtd.js'

// A worker thread that plays a daemon with so many busy guests: every bulk statistics call gets the same full-size reply, one
// that real guests on this machine could not make. It also answers what virsh asks on its way to `domstats`.

const guests: number = workerData
const vcpus = 4
const interfaces = 2
const disks = 2

type Value = string | number

/** One running guest's parameters as QEMU's driver sends them: 4 vCPUs, 2 interfaces, 2 disks, about 90 in all. */
function guestParams(index: number): [name: string, value: Value][] {
  const counter = 1_000_000_007 * (index + 1)
  const params: [string, Value][] = [
    ['state.state', 1],
    ['state.reason', 1],
    ['cpu.time', counter],
    ['cpu.user', counter],
    ['cpu.system', counter],
  ]
  for (const name of [
    'current',
    'maximum',
    'swap_in',
    'swap_out',
    'major_fault',
    'minor_fault',
    'unused',
    'available',
  ]) {
    params.push([`balloon.${name}`, 4_194_304 + index])
  }
  for (const name of ['usable', 'last-update', 'disk_caches', 'hugetlb_pgalloc', 'hugetlb_pgfail', 'rss']) {
    params.push([`balloon.${name}`, 3_145_728 + index])
  }
  params.push(['vcpu.current', vcpus], ['vcpu.maximum', vcpus])
  for (let vcpu = 0; vcpu < vcpus; vcpu++) {
    for (const name of ['state', 'time', 'wait', 'delay'])
      params.push([`vcpu.${vcpu}.${name}`, name === 'state' ? 1 : counter])
  }
  params.push(['net.count', interfaces])
  for (let net = 0; net < interfaces; net++) {
    params.push([`net.${net}.name`, `vnet${index * interfaces + net}`])
    for (const direction of ['rx', 'tx']) {
      for (const name of ['bytes', 'pkts', 'errs', 'drop']) params.push([`net.${net}.${direction}.${name}`, counter])
    }
  }
  params.push(['block.count', disks])
  for (let disk = 0; disk < disks; disk++) {
    params.push([`block.${disk}.name`, disk === 0 ? 'vda' : 'vdb'])
    params.push([`block.${disk}.path`, `/var/lib/libvirt/images/guest-${index}-${disk}.qcow2`])
    for (const name of ['rd.reqs', 'rd.bytes', 'rd.times', 'wr.reqs', 'wr.bytes', 'wr.times', 'fl.reqs', 'fl.times']) {
      params.push([`block.${disk}.${name}`, counter])
    }
    for (const name of ['allocation', 'capacity', 'physical']) params.push([`block.${disk}.${name}`, counter])
  }
  return params
}

const stringType = 7
const unsignedLongType = 4

function writeParam(writer: XdrWriter, [name, value]: [string, Value]): void {
  writer.string(name)
  if (typeof value === 'string') writer.i32(stringType).string(value)
  else writer.i32(unsignedLongType).u64(value)
}

function writeGuest(writer: XdrWriter, index: number): void {
  const uuid = `00000000-0000-4000-8000-${index.toString(16).padStart(12, '0')}`
  writer
    .string(`guest-${index}`)
    .uuid(uuid)
    .i32(index + 1)
    .array(guestParams(index), writeParam)
}

const daemon = await FakeLibvirtd.start()
const indexes = Array.from({ length: guests }, (_, index) => index)
daemon.on(procedures.getAllDomainStats, call => call.reply(writer => writer.array(indexes, writeGuest)))
// what virsh asks around it
daemon.on(procedures.supportsFeature, call => call.reply(writer => writer.i32(0)))
const closing: Procedure = procedures.connectClose
daemon.on(closing, call => call.reply())
parentPort?.postMessage(daemon.socketPath)
parentPort?.once('message', async () => {
  await daemon.remove()
  parentPort?.postMessage('removed')
})
