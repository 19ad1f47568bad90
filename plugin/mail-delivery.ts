import { isIP } from 'node:net'
import type { HandlerContext } from './handler.js'
import { receiverAddress } from './receiver-address.js'
import { PassingError, retry } from './retry.js'
import { printable } from './text.js'

/** How a mail server is spoken to. */
export interface MailServer {
  readonly host: string
  readonly port: number
  /** `starttls` and `tls` refuse to go on without; `opportunistic` takes STARTTLS when it is offered; `none` never. */
  readonly security: 'starttls' | 'tls' | 'opportunistic' | 'none'
  readonly verify: boolean
  /** Certificates (PEM) of the authorities to trust; those that Node.js knows without. */
  readonly authorities: string | undefined
  readonly login: { readonly user: string; readonly password: string } | undefined
  /** This machine's name, for the greeting. */
  readonly hostname: string
}

/** A mail as nodemailer takes it, besides whom it goes to. */
export interface Mail {
  readonly from: string
  readonly to: readonly string[]
  readonly subject: string
  readonly text: string
  readonly html: string
  readonly messageId: string
  readonly references: string
  readonly inReplyTo: string
  readonly headers: Readonly<Record<string, string>>
}

/** The message as it would go over the wire. */
export async function renderMail(mail: Mail): Promise<string> {
  const { createTransport } = await import('nodemailer')
  const { message } = await createTransport({ streamTransport: true, buffer: true, newline: 'unix' }).sendMail(
    copyOf(mail),
  )
  return String(message)
}

/**
 * Sends a mail, one copy for all its recipients, until the server has taken it for each of them or refused it for good; who is only put off (greylisting) is tried again alone.
 * Throws with the server, what it said, and who did get the mail.
 */
export async function sendMail(mail: Mail, server: MailServer, context: HandlerContext): Promise<void> {
  const where = `${server.host}:${server.port}`
  const sent: string[] = []
  const refused: string[] = []
  let waiting = mail.to.map(bareAddress)
  try {
    await retry(context, async timeoutMs => {
      const answer = await attempt(mail, waiting, server, timeoutMs, context)
      sent.push(...answer.accepted)
      refused.push(...answer.refused)
      waiting = answer.putOff.map(({ address }) => address)
      const [first] = answer.putOff
      if (first !== undefined) throw new PassingError(`${where} puts ${waiting.join(', ')} off: ${first.response}`)
    })
    if (refused.length > 0)
      throw new Error(`${where} refuses ${refused.join('; ')}: correct the address, or what the server lets in`)
  } catch (error) {
    if (sent.length === 0 || !(error instanceof Error)) throw error
    throw new Error(`sent to ${sent.join(', ')} only: ${error.message}`, { cause: error })
  }
}

/** `ops@example.com` of `Operators <ops@example.com>`. */
export function bareAddress(recipient: string): string {
  return (/<([^<>]+)>\s*$/.exec(recipient)?.[1] ?? recipient).trim()
}

function copyOf({ to, headers, ...mail }: Mail) {
  return { ...mail, to: [...to], headers: { ...headers }, disableFileAccess: true, disableUrlAccess: true }
}

interface Answer {
  readonly accepted: readonly string[]
  /** Addresses with what the server says. */
  readonly refused: readonly string[]
  readonly putOff: readonly { readonly address: string; readonly response: string }[]
}

async function attempt(
  mail: Mail,
  recipients: readonly string[],
  server: MailServer,
  timeoutMs: number,
  context: HandlerContext,
): Promise<Answer> {
  const { createTransport } = await import('nodemailer')
  const address = await receiverAddress(server.host, context, timeoutMs)
  const limit = AbortSignal.timeout(Math.ceil(timeoutMs))
  const transport = createTransport(transportOptions(server, address, timeoutMs))
  const envelope = { from: bareAddress(mail.from), to: [...recipients] }
  try {
    const info = await transport.sendMail({
      ...copyOf(mail),
      envelope,
      signal: AbortSignal.any([context.signal, limit]),
    })
    return answerOf(info.accepted.map(String), rejectionsOf(info))
  } catch (error) {
    const rejections = rejectionsOf(error)
    if (rejections.length > 0) return answerOf([], rejections)
    throw clear(error, server, { timeoutMs, isSilent: limit.aborted })
  } finally {
    transport.close()
  }
}

function transportOptions(
  { host, port, security, verify, authorities, login, hostname }: MailServer,
  address: string,
  timeoutMs: number,
) {
  const timeout = Math.ceil(timeoutMs)
  return {
    host: address,
    port,
    name: hostname,
    secure: security === 'tls',
    requireTLS: security === 'starttls',
    ignoreTLS: security === 'none',
    tls: {
      rejectUnauthorized: verify,
      // The name that was asked for, not the address that was found.
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ...(authorities === undefined ? {} : { ca: authorities }),
    },
    ...(login === undefined ? {} : { auth: { user: login.user, pass: login.password }, forceAuth: true }),
    connectionTimeout: timeout,
    greetingTimeout: timeout,
    socketTimeout: timeout,
  }
}

interface Rejection {
  readonly address: string
  readonly code: number
  readonly response: string
}

/** The recipients that a server did not take: nodemailer's `rejectedErrors`, in its answer or in its error. */
function rejectionsOf(value: unknown): Rejection[] {
  const list = memberOf(value, 'rejectedErrors')
  if (!Array.isArray(list)) return []
  return list.map(error => ({
    address: String(memberOf(error, 'recipient') ?? ''),
    code: Number(memberOf(error, 'responseCode') ?? 0),
    response: printable(String(memberOf(error, 'response') ?? ''), 200),
  }))
}

function answerOf(accepted: readonly string[], rejections: readonly Rejection[]): Answer {
  return {
    accepted,
    refused: rejections.filter(({ code }) => code >= 500).map(({ address, response }) => `${address} (${response})`),
    putOff: rejections.filter(({ code }) => code < 500),
  }
}

/** What went wrong, in words, and whether it may pass. */
function clear(
  error: unknown,
  { host, port, login }: MailServer,
  { timeoutMs, isSilent }: { timeoutMs: number; isSilent: boolean },
): Error {
  const where = `${host}:${port}`
  const code = String(memberOf(error, 'code') ?? '')
  const responseCode = Number(memberOf(error, 'responseCode') ?? 0)
  const response = memberOf(error, 'response')
  const message = error instanceof Error ? error.message : String(error)
  const said = printable(typeof response === 'string' ? response : message, 300)
  if (isSilent || code === 'ETIMEDOUT')
    return new PassingError(`no answer from ${where} within ${(timeoutMs / 1000).toFixed(1)} s`, { cause: error })
  if (responseCode >= 400 && responseCode < 500)
    return new PassingError(`${where} puts us off: ${said}`, { cause: error })
  if (code === 'EAUTH' || code === 'ENOAUTH')
    return new Error(`${where} refuses the login of ${login?.user ?? 'nobody'}: ${said}: correct username and password`)
  if (/certificate|altname/i.test(message))
    return new Error(`cannot trust ${where}: ${said}: name its authority in ca_file, or its right name in host`)
  if (code === 'ETLS') return new Error(`no TLS with ${where}: ${said}: correct tls and port`)
  if (responseCode >= 500) return new Error(`${where} refuses the mail: ${said}`)
  return new PassingError(`cannot send through ${where}: ${said}`, { cause: error })
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined
}
