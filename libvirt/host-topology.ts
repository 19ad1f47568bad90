import { attribute, child, children, type Element, parseXml, text } from './xml.js'

/** A NUMA cell (node) of the host, as `<capabilities>` describes it. */
export interface HostCell {
  cell: number
  memoryBytes: number
  /** Host CPUs of the cell by number; only those that are online. */
  cpus: number[]
  /** Pages of each size that are set aside in the cell; the smallest size is that of ordinary memory. */
  pages: { sizeBytes: number; count: number }[]
}

const bytesPerUnit: Readonly<Record<string, number>> = { b: 1, bytes: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }

/** The host's NUMA cells from its capabilities' XML; a host without NUMA has one. Malformed XML: see `parseXml`. */
export async function parseHostCells(capabilitiesXml: string): Promise<HostCell[]> {
  const capabilities = await parseXml(capabilitiesXml, 'the XML of capabilities', 'capabilities')
  const topology = child(child(capabilities, 'host'), 'topology')
  return children(child(topology, 'cells'), 'cell').flatMap(readCell)
}

function readCell(element: Element): HostCell[] {
  const cell = wholeNumber(attribute(element, 'id'))
  const memoryBytes = sizeBytes(child(element, 'memory'), text(element, 'memory'))
  if (cell === undefined || memoryBytes === undefined) return []
  const cpus = children(child(element, 'cpus'), 'cpu').flatMap(cpu => wholeNumber(attribute(cpu, 'id')) ?? [])
  return [{ cell, memoryBytes, cpus, pages: children(element, 'pages').flatMap(readPages) }]
}

function readPages(pages: Element): HostCell['pages'] {
  const size = sizeBytes(pages, attribute(pages, 'size'))
  const count = wholeNumber(typeof pages['#text'] === 'string' ? pages['#text'] : undefined)
  return size === undefined || count === undefined ? [] : [{ sizeBytes: size, count }]
}

/** libvirt writes a size as a number and a unit, KiB when none is given. */
function sizeBytes(element: Element | undefined, amount: string | undefined): number | undefined {
  const unit = bytesPerUnit[attribute(element, 'unit') ?? 'KiB']
  const value = wholeNumber(amount)
  return unit === undefined || value === undefined ? undefined : value * unit
}

function wholeNumber(value: string | undefined): number | undefined {
  return value !== undefined && /^\d{1,15}$/.test(value.trim()) ? Number(value) : undefined
}
