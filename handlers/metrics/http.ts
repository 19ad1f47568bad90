import { readFileSync } from 'node:fs'
import type { HandlerContext } from '../../plugin/handler.js'
import { exchangeHttp } from '../../plugin/http-exchange.js'
import { PassingError, retry } from '../../plugin/retry.js'
import { printable } from '../../plugin/text.js'

/** One request that hands numbers over. */
export interface Post {
  readonly url: URL
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  /** PEM file with the certificates to trust, instead of the system's. */
  readonly caFile: string | undefined
}

/** What a store answered for good. */
export interface Answer {
  readonly code: number
  readonly body: string
}

/** Sends until there is an answer that trying again would not change. Throws when there is none in time. */
export function post(
  request: Post,
  context: Pick<HandlerContext, 'signal' | 'timeLeftMs' | 'random'>,
): Promise<Answer> {
  return retry(context, async timeoutMs => {
    const answer = await attempt(request, timeoutMs, context.signal)
    if (answer.code === 429 || answer.code >= 500)
      throw new PassingError(`${place(request.url)} answered ${answerText(answer)}`)
    return answer
  })
}

async function attempt({ url, headers, body, caFile }: Post, timeoutMs: number, signal: AbortSignal): Promise<Answer> {
  const secure = url.protocol === 'https:'
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1')
  const tls = secure
    ? { rejectUnauthorized: true, ...(caFile !== undefined && { ca: readFileSync(caFile) }) }
    : undefined
  try {
    const { code, body: answer } = await exchangeHttp({
      host,
      address: host,
      port: url.port === '' ? (secure ? 443 : 80) : Number(url.port),
      path: url.pathname + url.search,
      method: 'POST',
      headers,
      body,
      tls,
      openTimeoutMs: timeoutMs,
      readTimeoutMs: timeoutMs,
      signal,
    })
    return { code: Number(code), body: answer.toString() }
  } catch (error) {
    throw new PassingError(`cannot send to ${place(url)}: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    })
  }
}

/** Where it went, without what the query may hold. */
export function place({ protocol, host }: URL): string {
  return `${protocol}//${host}`
}

/** `404: database not found`. */
export function answerText({ code, body }: Answer): string {
  const said = printable(body, 200)
  return said === '' ? String(code) : `${code}: ${said}`
}
