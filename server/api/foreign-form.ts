import type { ApiRequest } from './request.js'

/** Content types that a browser sends for a page from elsewhere without asking the API first (Fetch standard, "CORS-safelisted"). */
const formTypes = /^(application\/x-www-form-urlencoded|multipart\/form-data|text\/plain)?\s*(;|$)/i

/**
 * Whether a browser sends this for a page from elsewhere, as forms can, without asking first. The browser adds the password it knows, so such a page
 * could silence alerts unseen. Programs do not send `Origin`; what browsers ask for first is decided by CORS.
 */
export function isForeignForm({ method, headers }: ApiRequest): boolean {
  const { origin, host, 'content-type': type = '' } = headers
  if (method !== 'POST' || origin === undefined || !formTypes.test(type)) return false
  return origin.replace(/^https?:\/\//, '') !== host
}
