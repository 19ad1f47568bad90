import { readFileSync } from 'node:fs'

/**
 * What a real Sensu 1.9 client answered to inputs beyond the recorded cases, where this agent is to do the same: times and durations
 * are 0. What it does otherwise on purpose has tests of its own.
 */
export function observed<T>(name: 'requests' | 'sockets' | 'configuration'): T {
  return JSON.parse(readFileSync(new URL(`../../../test/fixtures/observed/${name}.json`, import.meta.url), 'utf8'))
}

/** JSON text without what differs from run to run. */
export function timeless(text: string): string {
  return text
    .replace(/"(executed|issued)":1[789]\d{8}(?=[,}])/g, '"$1":0')
    .replace(/"duration":[\d.]+/g, '"duration":0')
}
