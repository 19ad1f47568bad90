import type { BlockStatsView, DomainStats } from './records.js'

export interface DiskImage {
  /** Absent when it is no local file or device (network disk). */
  readonly path?: string | undefined
  /** Space it takes as libvirt tells it, the larger of what is written and of what is set aside; absent when not told. */
  readonly takenBytes?: number | undefined
}

/** One disk of a guest and its images, out of a bulk sample that was asked for `backing`. */
export interface DiskImages {
  /** Target name, e.g. `vda`. */
  readonly name: string
  /** Size that the guest sees; absent for an empty drive, and when QEMU does not answer. */
  readonly capacityBytes?: number | undefined
  /** The one that is written to first, then those below it; of a guest that does not run the first one only. */
  readonly images: readonly DiskImage[]
}

/** The disks of a guest; drives without an image are left out. */
export function diskImagesOf({ blocks }: Pick<DomainStats, 'blocks'>): DiskImages[] {
  const chains = new Map<string, BlockStatsView[]>()
  for (const block of blocks) {
    const chain = chains.get(block.name)
    if (chain === undefined) chains.set(block.name, [block])
    else chain.push(block)
  }
  return [...chains].flatMap(([name, chain]) => {
    const [top] = chain
    const capacityBytes = top?.capacityBytes || undefined
    if (top === undefined || (top.path === undefined && capacityBytes === undefined)) return []
    return [{ name, capacityBytes, images: chain.map(imageOf) }]
  })
}

function imageOf({ path, allocationBytes, physicalBytes }: BlockStatsView): DiskImage {
  const taken = [allocationBytes, physicalBytes].filter(bytes => bytes !== undefined)
  return { path, takenBytes: taken.length === 0 ? undefined : Math.max(...taken) }
}
