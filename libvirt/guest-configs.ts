import type { CallOptions } from './calls.js'
import { type DomainConfig, parseDomainXml } from './domain-xml.js'
import { LibvirtError } from './errors.js'
import type { Domain } from './records.js'

/** Calls under way at a time; the connection for cheap calls has as many places. */
const callsAtATime = 4

/** The call that reads a guest's XML, as a Host makes it. */
export interface XmlSource {
  domainXml(domain: Domain, which?: 'current' | 'inactive', options?: CallOptions): Promise<string>
}

export interface GuestConfigOptions {
  /** Guests whose XML does not contain this text are left out before anything is parsed: parsing costs more than reading. */
  containing?: string
  /** As `containing`, for what takes more than a text to decide. */
  wanted?: (xml: string, domain: Domain) => boolean
  signal?: AbortSignal
}

/**
 * The configuration of guests by UUID: one DOMAIN_GET_XML_DESC each, which libvirt answers without asking QEMU. A guest that vanished
 * meanwhile is left out.
 */
export async function readGuestConfigs(
  host: XmlSource,
  domains: readonly Domain[],
  { containing = '', wanted = () => true, signal }: GuestConfigOptions = {},
): Promise<Map<string, DomainConfig>> {
  const configs = new Map<string, DomainConfig>()
  const queue = domains.values()
  const work = async () => {
    for (const domain of queue) {
      const xml = await xmlOf(host, domain, signal)
      if (xml?.includes(containing) && wanted(xml, domain)) configs.set(domain.uuid, await parseDomainXml(xml))
    }
  }
  await Promise.all(Array.from({ length: Math.min(callsAtATime, domains.length) }, work))
  return configs
}

async function xmlOf(host: XmlSource, domain: Domain, signal: AbortSignal | undefined): Promise<string | undefined> {
  try {
    return await host.domainXml(domain, 'current', signal === undefined ? {} : { signal })
  } catch (error) {
    if (error instanceof LibvirtError && error.notFound) return undefined
    throw error
  }
}

/**
 * The limits that guests' metadata sets for one program, by UUID: of `<sensu-kvm:limits><check-kvm-memory warning="85"/>…` the attributes
 * of the element with the program's name. A guest without any is left out.
 */
export async function readGuestLimits(
  host: XmlSource,
  domains: readonly Domain[],
  program: string,
  signal?: AbortSignal,
): Promise<Map<string, Record<string, string>>> {
  const options = { containing: '<sensu-kvm:limits', ...(signal === undefined ? {} : { signal }) }
  const configs = await readGuestConfigs(host, domains, options)
  const prefix = `${program}.`
  const limits = new Map<string, Record<string, string>>()
  for (const [uuid, config] of configs) {
    const own = Object.entries(config.limits).filter(([name]) => name.startsWith(prefix))
    if (own.length > 0)
      limits.set(uuid, Object.fromEntries(own.map(([name, text]) => [name.slice(prefix.length), text])))
  }
  return limits
}
