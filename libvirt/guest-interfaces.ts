import { type Ask, refusedText } from './guest-agents.js'

/** Interfaces of one guest that are looked at. */
const mostInterfaces = 1000

/** What an interface inside a guest has counted since it came up. */
export interface InnerCounters {
  readonly errors: number
  readonly drops: number
}

/**
 * Errors and drops of the interfaces inside a guest, sent and received together, by name: guest-network-get-interfaces, passed through to its agent. In
 * words why not when the agent refuses. An interface of which nothing is counted is left out.
 */
export async function askInterfaceCounters(ask: Ask): Promise<ReadonlyMap<string, InnerCounters> | string> {
  try {
    const listed = await ask('guest-network-get-interfaces')
    const interfaces: unknown[] = Array.isArray(listed) ? listed.slice(0, mostInterfaces) : []
    return new Map(interfaces.flatMap(countersOf))
  } catch (error) {
    return refusedText(error)
  }
}

/** Nothing in what an agent sends is certain. */
function countersOf(each: unknown): [name: string, counters: InnerCounters][] {
  const { name, statistics } = record(each)
  const counted = record(statistics)
  const sum = (...names: readonly string[]) => names.reduce((total, field) => total + Number(counted[field]), 0)
  const counters = { errors: sum('rx-errs', 'tx-errs'), drops: sum('rx-dropped', 'tx-dropped') }
  const isWhole = Number.isFinite(counters.errors) && Number.isFinite(counters.drops)
  return typeof name === 'string' && isWhole ? [[name, counters]] : []
}

function record(value: unknown): Partial<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? { ...value } : {}
}
