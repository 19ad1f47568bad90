import { attribute, child, parseXml, text } from './xml.js'

/** What checks need of a storage pool's XML. */
export interface PoolConfig {
  /** `dir`, `fs`, `netfs`, `logical`, `iscsi`, `rbd`, … */
  readonly type: string
  /** The directory of its volumes on the host; absent for pools without one. */
  readonly path?: string | undefined
}

/** Reads a storage pool's XML. Malformed XML: see `parseXml`. */
export async function parsePoolXml(xml: string): Promise<PoolConfig> {
  const pool = await parseXml(xml, "a storage pool's XML", 'pool')
  return { type: attribute(pool, 'type') ?? 'unknown', path: text(child(pool, 'target'), 'path') }
}
