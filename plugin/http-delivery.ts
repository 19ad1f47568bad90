import type { HandlerContext } from './handler.js'
import { exchangeHttp, type HttpResponse, HttpTimeoutError } from './http-exchange.js'
import { receiverAddress } from './receiver-address.js'
import { PassingError, retry } from './retry.js'
import { decodeUrl } from './secret.js'
import { certificatesRule } from './setting-rules.js'
import type { SettingTable, SettingValues } from './settings-table.js'
import { printable } from './text.js'

/** The settings of every handler that speaks HTTP. */
export const httpSettings = {
  ca_file: {
    type: 'file',
    rule: certificatesRule,
    summary:
      "Certificates (PEM) of the authorities that may have issued the server's; default: those that Node.js knows.",
  },
  proxy: {
    type: 'secret',
    protocols: ['http'],
    summary:
      'Proxy to go through, `http://[USER:PASSWORD@]HOST:PORT`; `"proxy_env": "https_proxy"` takes it from there.',
  },
} as const satisfies SettingTable

export type HttpSettings = SettingValues<typeof httpSettings>

/** What is sent by POST. */
export interface Delivery {
  /** Http or https; what follows the host may be secret and is in no message. */
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** The server refused a request for good. */
export class RefusedError extends Error {
  override readonly name = 'RefusedError'
  readonly response: HttpResponse

  constructor(message: string, response: HttpResponse) {
    super(message)
    this.response = response
  }
}

/** Answers after which the same request may succeed. */
const passingCodes = new Set(['408', '425', '429', '500', '502', '503', '504'])
const longestExcerpt = 200

/**
 * Sends a request until the server takes it (2xx) and returns what it answered. Nothing is followed: a redirect is a failure, so that neither signature nor secrets
 * reach another server. Connections that fail, and answers that say to come back, are tried again. Throws with the server's origin, the reason, and what to do;
 * RefusedError for other answers that trying again would not change.
 */
export function deliver(delivery: Delivery, settings: HttpSettings, context: HandlerContext): Promise<HttpResponse> {
  const { origin } = new URL(delivery.url)
  const send = requester(delivery, settings, context)
  context.stage(`sending to ${origin}`)
  return retry(context, async timeoutMs => {
    const response = await answerOf(send, origin, timeoutMs, context.signal)
    const { code, location, retryAfter } = response
    if (/^2\d\d$/.test(code)) return response
    const answer = `${origin} answers ${code}${excerpt(response)}`
    if (passingCodes.has(code)) {
      const retryAfterMs = retryAfter === undefined ? undefined : retryAfterMsOf(retryAfter, context.now())
      throw new PassingError(`${answer}${askedText(retryAfterMs)}`, { retryAfterMs })
    }
    if (/^3\d\d$/.test(code)) {
      throw new Error(
        `${answer}: it redirects to ${originOf(location, delivery.url)}, which is not followed: configure the final URL`,
      )
    }
    throw new RefusedError(`${answer}: correct the URL or what it asks for`, response)
  })
}

type Send = (timeoutMs: number, signal: AbortSignal) => Promise<HttpResponse>

/** Makes the request once, for any number of tries. */
function requester(
  { url, headers, body }: Delivery,
  { ca_file: ca, proxy }: HttpSettings,
  context: HandlerContext,
): Send {
  const { protocol, hostname, port, pathname, search, username, password } = new URL(url)
  const host = hostname.replace(/^\[|\]$/g, '')
  const isTls = protocol === 'https:'
  const via = proxy === undefined ? undefined : new URL(proxy.reveal())
  const request = {
    host,
    port: Number(port) || (isTls ? 443 : 80),
    path: pathname + search,
    method: 'POST',
    headers: { ...basicAuthorization('Authorization', username, password), ...headers },
    body,
    ...(isTls ? { tls: { rejectUnauthorized: true, ...(ca === undefined ? {} : { ca }) } } : {}),
    ...(via === undefined
      ? {}
      : {
          proxy: {
            port: Number(via.port) || 80,
            authorization: basicAuthorization('proxy', via.username, via.password)['proxy'],
          },
        }),
  }
  const receiver = via?.hostname.replace(/^\[|\]$/g, '') ?? host
  return async (timeoutMs, signal) => {
    const address = await receiverAddress(receiver, context, timeoutMs)
    return exchangeHttp({ ...request, address, openTimeoutMs: timeoutMs, readTimeoutMs: timeoutMs, signal })
  }
}

function basicAuthorization(name: string, user: string, password: string): Record<string, string> {
  if (user === '') return {}
  const credentials = `${decodeUrl(user)}:${decodeUrl(password)}`
  return { [name]: `Basic ${Buffer.from(credentials).toString('base64')}` }
}

async function answerOf(send: Send, origin: string, timeoutMs: number, signal: AbortSignal): Promise<HttpResponse> {
  // A server that sends a byte now and then must not have all of the time.
  const limit = AbortSignal.timeout(Math.ceil(timeoutMs))
  try {
    return await send(timeoutMs, AbortSignal.any([signal, limit]))
  } catch (error) {
    if (error instanceof PassingError) throw error
    const reason = error instanceof Error ? error.message : String(error)
    if (/^certificate verify failed/.test(reason)) {
      throw new Error(`cannot trust ${origin}: ${reason}: name its authority in ca_file`, { cause: error })
    }
    const silent = limit.aborted || error instanceof HttpTimeoutError
    const text = silent ? `no answer within ${(timeoutMs / 1000).toFixed(1)} s` : reason
    throw new PassingError(`cannot send to ${origin}: ${text}`, { cause: error })
  }
}

/** Of the body only what is of use to who reads the one line. */
function excerpt({ body }: HttpResponse): string {
  const text = printable(body.toString('utf8', 0, 2 * longestExcerpt), longestExcerpt)
  return text === '' || text.startsWith('<') ? '' : ` (${text})`
}

function originOf(location: string | undefined, url: string): string {
  return location !== undefined && URL.canParse(location, url) ? new URL(location, url).origin : 'nowhere'
}

/** Seconds, or a date (RFC 9110, 10.2.3); undefined for anything else. */
function retryAfterMsOf(text: string, nowMs: number): number | undefined {
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000
  const dateMs = Date.parse(text)
  return Number.isNaN(dateMs) ? undefined : Math.max(0, dateMs - nowMs)
}

function askedText(retryAfterMs: number | undefined): string {
  return retryAfterMs === undefined ? '' : `, and to come back in ${Math.ceil(retryAfterMs / 1000)} s`
}

/** A request as a dry run prints it; headers named in `secretHeaders`, the URL's login, and its path when that is secret, are hidden. */
export function previewOf(
  { url, headers, body }: Delivery,
  secretHeaders: readonly string[],
  isUrlSecret: boolean,
): string {
  const { origin, pathname, search, username, password } = new URL(url)
  const shown = isUrlSecret ? `${origin}/REDACTED` : username + password === '' ? url : origin + pathname + search
  const lines = Object.entries(headers).map(
    ([name, value]) => `${name}: ${secretHeaders.includes(name) ? 'REDACTED' : printable(value)}`,
  )
  return [`POST ${shown}`, ...lines, '', body].join('\n')
}
