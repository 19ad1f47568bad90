import { dirname } from 'node:path'
import { type DiskFault, readDiskFaults } from '../../libvirt/disk-faults.js'
import type { Host } from '../../libvirt/host.js'
import { poolOf, readPoolSpaces } from '../../libvirt/pool-space.js'
import type { Domain } from '../../libvirt/records.js'
import { isOnThisMachine } from '../../libvirt/uri.js'
import { readFilesystem } from '../../plugin/filesystem.js'
import type { FaultyDisk } from './decide.js'

/** A file system that takes longer is taken for hung. */
const filesystemTimeoutMs = 2000

/**
 * The disks of a guest that have an error, and what is free where they are now; undefined when QEMU does not tell. Files of this machine are asked of
 * its file systems, others of the storage pool they are in: as of now when `refresh` (a change, by libvirt's rules), else as of the pool's last refresh.
 */
export async function readFaultyDisks(
  host: Host,
  domain: Domain,
  { signal, refresh }: { signal: AbortSignal; refresh: boolean },
): Promise<FaultyDisk[] | undefined> {
  const faults = (await readDiskFaults(host, [domain], signal)).get(domain.uuid)
  return (
    faults && Promise.all(faults.map(async fault => ({ ...fault, ...(await roomFor(host, fault, signal, refresh)) })))
  )
}

type Room = Pick<FaultyDisk, 'availableBytes' | 'place' | 'unknownBecause'>

async function roomFor(host: Host, { path }: DiskFault, signal: AbortSignal, refresh: boolean): Promise<Room> {
  if (path === undefined) return { unknownBecause: 'it is no file' }
  if (path.startsWith('/dev/')) return { unknownBecause: `${path} is a block device: its space is managed elsewhere` }
  return (await roomHere(host, path)) ?? (await roomInPool(host, path, signal, refresh))
}

/** Undefined when the file cannot be looked at here: on another machine, or where only libvirt sees it. */
async function roomHere(host: Host, path: string): Promise<Room | undefined> {
  if (!isOnThisMachine(host.uri)) return undefined
  try {
    const { availableBytes, mountPoint } = await readFilesystem(path, filesystemTimeoutMs)
    return { availableBytes, place: mountPoint }
  } catch {
    return undefined
  }
}

async function roomInPool(host: Host, path: string, signal: AbortSignal, refresh: boolean): Promise<Room> {
  try {
    const found = poolOf(path, await readPoolSpaces(host, { signal }))
    if (found === undefined)
      return { unknownBecause: `${dirname(path)} is neither on this machine nor in an active storage pool` }
    const place = `pool ${found.name}`
    if (!refresh) return { availableBytes: found.availableBytes, place }
    const pool = await host.storagePool(found.name, { signal })
    await host.refreshStoragePool(pool, { signal })
    return { availableBytes: (await host.storagePoolInfo(pool, { signal })).availableBytes, place }
  } catch (error) {
    return { unknownBecause: error instanceof Error ? error.message : String(error) }
  }
}
