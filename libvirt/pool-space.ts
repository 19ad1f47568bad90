import type { CallOptions } from './calls.js'
import { parsePoolXml } from './pool-xml.js'
import type { ResourceFilter, StoragePool, StoragePoolInfo } from './records.js'

/** Pools that are looked at, and asked about at a time. */
const mostPools = 500
const poolsAtATime = 3

/** A storage pool that is a directory, and its space as of its last refresh. */
export interface PoolSpace {
  readonly name: string
  readonly path: string
  readonly totalBytes: number
  readonly availableBytes: number
}

/** The calls made here, as a Host makes them. */
export interface PoolSource {
  storagePools(filter?: ResourceFilter, options?: CallOptions): Promise<StoragePool[]>
  storagePoolInfo(pool: StoragePool, options?: CallOptions): Promise<StoragePoolInfo>
  storagePoolXml(pool: StoragePool, options?: CallOptions): Promise<string>
}

/** Active pools that keep images as files: two calls each. A pool that does not answer, or is gone, is left out. */
export async function readPoolSpaces(host: PoolSource, options: CallOptions): Promise<PoolSpace[]> {
  const pools = (await host.storagePools({ active: true }, options)).slice(0, mostPools)
  const spaces: PoolSpace[] = []
  const queue = pools.values()
  const work = async () => {
    for (const pool of queue) {
      const space = await readSpace(host, pool, options).catch(() => undefined)
      if (space !== undefined) spaces.push(space)
    }
  }
  await Promise.all(Array.from({ length: Math.min(poolsAtATime, pools.length) }, work))
  return spaces
}

const directoryPools: readonly string[] = ['dir', 'fs', 'netfs']

async function readSpace(host: PoolSource, pool: StoragePool, options: CallOptions): Promise<PoolSpace | undefined> {
  const { type, path } = await parsePoolXml(await host.storagePoolXml(pool, options))
  if (path === undefined || !directoryPools.includes(type)) return undefined
  const { capacityBytes: totalBytes, availableBytes } = await host.storagePoolInfo(pool, options)
  return { name: pool.name, path, totalBytes, availableBytes }
}

/** The pool that an image is in. */
export function poolOf(path: string, pools: readonly PoolSpace[]): PoolSpace | undefined {
  const above = pools.filter(pool => path.startsWith(`${pool.path.replace(/\/+$/, '')}/`))
  return above.toSorted((one, other) => other.path.length - one.path.length)[0]
}
