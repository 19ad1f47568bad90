import type { Logger } from '../../sensu/log.js'
import { durationSeconds } from '../../sensu/results.js'
import type { JsonObject } from '../../sensu/types.js'
import type { ApiRequest } from './request.js'

/** As much of a body, an address or a header as a log line shows. */
const EXCERPT_CHARACTERS = 4096

/** Logs a request as it comes in; at level debug, as Sensu 1.9 does. */
export function logRequest(log: Logger, request: ApiRequest): void {
  if (log.enabled('debug')) log.debug('api request', { request: described(request) })
}

/** Logs what was answered: the API's access log. `bytes` counts the body. */
export function logResponse(
  log: Logger,
  request: ApiRequest,
  status: number,
  bytes: number,
  milliseconds: number,
): void {
  if (!log.enabled('info')) return
  log.info('api response', {
    request: described(request),
    status,
    content_length: bytes,
    time: durationSeconds(milliseconds),
  })
}

function described({ id, remoteAddress, headers, method, path, queryString, body }: ApiRequest): JsonObject {
  const forwarded = headers['x-forwarded-for']
  return {
    request_id: excerpt(id),
    remote_address: remoteAddress,
    user_agent: excerpt(headers['user-agent']),
    method,
    uri: excerpt(path),
    query_string: excerpt(queryString),
    body: excerpt(body),
    ...(forwarded !== undefined && { x_forwarded_for: excerpt(String(forwarded)) }),
  }
}

function excerpt(text: string | undefined): string | null {
  if (text === undefined) return null
  return text.length > EXCERPT_CHARACTERS ? `${text.slice(0, EXCERPT_CHARACTERS)}… (${text.length} characters)` : text
}
