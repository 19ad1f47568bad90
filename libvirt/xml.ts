import { LibvirtConnectionError } from './errors.js'

/** Longer XML is refused; a guest's has 5 to 50 kB, a large host's capabilities some hundred. */
const maximumXmlLength = 1024 * 1024
/** Elements of one kind that are looked at. */
export const maximumItems = 4096

/** An element as the parser gives it: attributes as `@name`, text as `#text`, children by name. */
export type Element = { readonly [key: string]: unknown }

/**
 * Parses XML from libvirt and returns its root element. The parser is loaded on first use. Refuses oversized XML, document types and entities
 * other than XML's own five with LibvirtConnectionError `protocol`: libvirt sends none of these.
 *
 * @param what whose XML it is, for messages: `a guest's XML`
 */
export async function parseXml(xml: string, what: string, root: string): Promise<Element> {
  const malformed = (why: string, cause?: unknown) =>
    new LibvirtConnectionError('protocol', `${what} from libvirt cannot be read: ${why}`, cause)
  if (xml.length > maximumXmlLength) throw malformed(`it is longer than ${maximumXmlLength} characters`)
  if (/<!(?:DOCTYPE|ENTITY)/i.test(xml)) throw malformed('it contains a document type')
  const { XMLParser } = await import('fast-xml-parser')
  const parser = new XMLParser({
    attributeNamePrefix: '@',
    ignoreAttributes: false,
    parseTagValue: false,
    parseAttributeValue: false,
    processEntities: false,
    ignoreDeclaration: true,
    ignorePiTags: true,
  })
  let document: unknown
  try {
    document = parser.parse(xml, true)
  } catch (error) {
    throw malformed(error instanceof Error ? error.message : String(error), error)
  }
  const element = child(asElement(document), root)
  if (element === undefined) throw malformed(`it has no <${root}>`)
  return element
}

function asElement(value: unknown): Element | undefined {
  if (value === '') return {}
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : undefined
}

/** Child elements of a name, at most {@link maximumItems}. */
export function children(parent: Element | undefined, name: string): Element[] {
  const value = parent !== undefined && Object.hasOwn(parent, name) ? parent[name] : undefined
  const items: unknown[] = Array.isArray(value) ? value.slice(0, maximumItems) : value === undefined ? [] : [value]
  return items.flatMap(item => {
    const element = asElement(item)
    return element === undefined ? [] : [element]
  })
}

/** The first child element of a name. */
export function child(parent: Element | undefined, name: string): Element | undefined {
  return children(parent, name)[0]
}

/** An attribute of an element, entities decoded. */
export function attribute(element: Element | undefined, name: string): string | undefined {
  const value = element?.[`@${name}`]
  return typeof value === 'string' ? decodeEntities(value) : undefined
}

/** Text of a child element, with or without attributes. */
export function text(parent: Element | undefined, name: string): string | undefined {
  const value = parent !== undefined && Object.hasOwn(parent, name) ? parent[name] : undefined
  const first: unknown = Array.isArray(value) ? value[0] : value
  const content = typeof first === 'object' && first !== null && '#text' in first ? first['#text'] : first
  return typeof content === 'string' ? decodeEntities(content) : undefined
}

const entities: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" }

/** XML's own five entities and character numbers; anything else stays as it is written. */
export function decodeEntities(value: string): string {
  if (!value.includes('&')) return value
  return value.replaceAll(/&(#x[0-9a-f]{1,6}|#\d{1,7}|[a-z]+);/gi, (whole, name: string) => {
    if (!name.startsWith('#')) return entities[name] ?? whole
    const code = /^#x/i.test(name) ? Number.parseInt(name.slice(2), 16) : Number(name.slice(1))
    return code <= 0x10_ffff ? String.fromCodePoint(code) : whole
  })
}
