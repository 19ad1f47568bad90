import type { Route } from './router.js'

/** A page, a style sheet or a script: a text that is the same for everybody, answered also while Redis or the transport is away. */
export function asset(
  path: string,
  contentType: string,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): Route {
  const answer = { status: 200, body: text, contentType, headers }
  return { paths: [path], GET: () => answer, offline: true }
}
