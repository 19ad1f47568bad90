import type { StateStore } from './state.js'

/** More are not kept; whoever has more loses no result, only the report that one is gone. */
const mostKnown = 20_000

/** The guests that earlier runs knew and that are not present, in the order they were known. */
export async function readGone(store: StateStore, present: ReadonlySet<string>): Promise<string[]> {
  return namesOf(await store.read()).filter(name => !present.has(name))
}

/** Keeps what the next run is to know; writes only what changes. */
export async function keepKnown(store: StateStore, names: readonly string[]): Promise<void> {
  const known = [...names].sort().slice(0, mostKnown)
  if (JSON.stringify(namesOf(await store.read())) !== JSON.stringify(known)) await store.write(known)
}

/** Files may hold anything. */
function namesOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter(name => typeof name === 'string') : []
}
