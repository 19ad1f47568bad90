import { createHash, timingSafeEqual } from 'node:crypto'
import type { JsonObject } from '../../sensu/types.js'
import type { Answer } from './answer.js'

/** 401 as Sensu 1.9 says it. */
export const unauthorized: Answer = {
  status: 401,
  headers: { 'WWW-Authenticate': 'Basic realm="Restricted Area"' },
}

/**
 * Judges the `Authorization` header by `api.user` and `api.password`, in constant time; without both of them everybody may ask. As in Sensu 1.9 the
 * scheme is case-sensitive, and what follows a second colon is ignored, unless the password itself has one.
 */
export function authentication(api: JsonObject | undefined): (header: string | undefined) => boolean {
  const { user, password } = api ?? {}
  if (typeof user !== 'string' || typeof password !== 'string') return () => true
  const wanted = digest(`${user}:${password}`)
  return header => {
    const encoded = /^Basic +(\S+)$/.exec(header ?? '')?.[1] ?? ''
    const credentials = Buffer.from(encoded, 'base64').toString()
    const whole = timingSafeEqual(digest(credentials), wanted)
    const short = timingSafeEqual(digest(credentials.split(':', 2).join(':')), wanted)
    return whole || short
  }
}

/** Of equal length whatever the text, as the comparison demands. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
