import type { Host } from '../libvirt/host.js'
import { parseHostCells } from '../libvirt/host-topology.js'
import type { NodeMemoryStats } from '../libvirt/records.js'
import { defineCheck } from '../plugin/check.js'
import { Verdict } from '../plugin/outcome.js'
import { formatQuantity } from '../plugin/text.js'

/** A NUMA node's memory. */
export interface NodeSample {
  readonly node: number
  readonly totalBytes: number
  /** Wholly unused: page cache counts as used here, libvirt does not tell it by node. */
  readonly freeBytes: number
  /** Huge pages by size; sizes of which none are set aside are left out. */
  readonly hugepages: readonly { readonly sizeBytes: number; readonly total: number; readonly free: number }[]
}

export interface MemorySample {
  readonly memory: NodeMemoryStats
  /** Empty unless asked for. */
  readonly nodes: readonly NodeSample[]
}

export default defineCheck({
  name: 'check-kvm-host-memory',
  summary: 'Memory in use on the hypervisor, as libvirt reports it (nodememstats).',
  description: `Buffers and page cache count as free: the kernel gives them up when guests need memory (shared memory and tmpfs are part of the cache, too, and are not given up).
Memory that is set aside for huge pages counts as in use, whether guests use it or not; \`--hugepages-…\` judges those.

\`--node-free-…\` judges what is wholly unused in each NUMA node. libvirt does not tell the page cache of a node, so a healthy host may show little: a limit
of a few percent finds a node on which guests no longer fit while others are empty.`,
  options: {
    warning: { type: 'range', alias: 'w', default: '80', summary: 'Warn outside this range (% in use).' },
    critical: { type: 'range', alias: 'c', default: '90', summary: 'Critical outside this range (% in use).' },
    nodeFreeWarning: { type: 'range', summary: 'Warn when a NUMA node is outside this range (% free), as in 5:.' },
    nodeFreeCritical: { type: 'range', summary: 'Critical when a NUMA node is outside this range (% free), as in 2:.' },
    hugepagesWarning: { type: 'range', summary: "Warn outside this range (% in use of a NUMA node's huge pages)." },
    hugepagesCritical: {
      type: 'range',
      summary: "Critical outside this range (% in use of a NUMA node's huge pages); @100:100 is: exhausted.",
    },
  },
  async collect(host: Host, options, { signal, stage }): Promise<MemorySample> {
    stage('reading memory statistics')
    const memory = await host.nodeMemoryStats(undefined, { signal })
    const ofNodes = [options.nodeFreeWarning, options.nodeFreeCritical]
    const ofHugepages = [options.hugepagesWarning, options.hugepagesCritical]
    if ([...ofNodes, ...ofHugepages].every(limit => limit === undefined)) return { memory, nodes: [] }
    stage('reading memory of NUMA nodes')
    return { memory, nodes: await readNodes(host, signal) }
  },
  evaluate({ memory, nodes }, options) {
    const { totalBytes, freeBytes, buffersBytes = 0, cachedBytes = 0 } = memory
    if (totalBytes === undefined || freeBytes === undefined || totalBytes <= 0) {
      throw new Error('libvirt does not tell how much memory this host has and how much of it is free')
    }
    const usedBytes = Math.max(0, totalBytes - freeBytes - buffersBytes - cachedBytes)
    const usedPercent = (usedBytes / totalBytes) * 100
    const total = formatQuantity(totalBytes, 'B')
    const percent = { unit: '%', min: 0, max: 100 } as const
    const verdict = new Verdict()
    const { warning, critical } = options
    const inUse = { what: 'memory in use', name: 'used_percent', value: usedPercent, note: `of ${total}` }
    verdict.judge({ ...inUse, ...percent, warning, critical })
    const bytes = { total: totalBytes, used: usedBytes, free: freeBytes }
    const cache = { buffers: memory.buffersBytes, cached: memory.cachedBytes }
    for (const [name, value] of Object.entries({ ...bytes, ...cache })) {
      if (value !== undefined) verdict.measure({ name, value, unit: 'B', min: 0 })
    }
    const nodeLimits = { warning: options.nodeFreeWarning, critical: options.nodeFreeCritical }
    const pageLimits = { warning: options.hugepagesWarning, critical: options.hugepagesCritical }
    for (const { node, ...sample } of nodes) {
      const device = { device: `node${node}`, deviceLabel: 'node' }
      const free = { value: (sample.freeBytes / sample.totalBytes) * 100, ...percent, ...nodeLimits }
      const note = `of ${formatQuantity(sample.totalBytes, 'B')}`
      verdict.judge({ ...device, what: 'free', name: 'node_free_percent', note, ...free })
      for (const pages of sample.hugepages) {
        const size = formatQuantity(pages.sizeBytes, 'B')
        const used = { value: ((pages.total - pages.free) / pages.total) * 100, ...percent, ...pageLimits }
        const words = {
          what: `huge pages of ${size} in use`,
          name: 'hugepages_used_percent',
          note: `of ${pages.total}`,
        }
        verdict.judge({ ...device, ...words, labels: { size: size.replace(' ', '') }, ...used })
      }
    }
    const wanted = pageLimits.warning !== undefined || pageLimits.critical !== undefined
    if (wanted && nodes.every(({ hugepages }) => hugepages.length === 0)) {
      const message = 'no huge pages are set aside on this host: set vm.nr_hugepages, or leave out --hugepages-…'
      verdict.add({ status: 'UNKNOWN', message })
    }
    verdict.summary = `memory ${formatQuantity(usedPercent, '%')} in use (${formatQuantity(usedBytes, 'B')} of ${total}, cache counted as free)`
    return verdict
  },
})

async function readNodes(host: Host, signal: AbortSignal): Promise<NodeSample[]> {
  const cells = await parseHostCells(await host.capabilities({ signal }))
  const highest = Math.max(0, ...cells.map(({ cell }) => cell))
  const freeBytes = await host.nodeCellsFreeMemoryBytes(0, highest + 1, { signal })
  const samples: NodeSample[] = []
  for (const { cell, memoryBytes, pages } of cells) {
    const free = freeBytes[cell]
    // A node may have CPUs and no memory.
    if (free === undefined || memoryBytes === 0) continue
    const ordinaryBytes = Math.min(...pages.map(({ sizeBytes }) => sizeBytes))
    const sizes = pages.filter(({ sizeBytes, count }) => sizeBytes > ordinaryBytes && count > 0)
    const freePages =
      sizes.length === 0
        ? []
        : await host.nodeFreePages(
            sizes.map(size => size.sizeBytes),
            cell,
            1,
            { signal },
          )
    const hugepages = sizes.flatMap(({ sizeBytes, count }, index) => {
      const free = freePages[index]?.freePages
      return free === undefined ? [] : [{ sizeBytes, total: count, free }]
    })
    samples.push({ node: cell, totalBytes: memoryBytes, freeBytes: free, hugepages })
  }
  if (samples.length === 0) throw new Error(`libvirt at ${host.uri} does not tell the memory of its host's NUMA nodes`)
  return samples
}
