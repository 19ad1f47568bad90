import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { SMTPServer, type SMTPServerOptions } from 'smtp-server'
import type { Test } from 'tap'

/** One mail as a server took it. */
export interface ReceivedMail {
  readonly from: string
  readonly to: readonly string[]
  /** Headers and body. */
  readonly text: string
  readonly secure: boolean
  readonly user: string | undefined
}

/** An SMTP server on loopback that keeps what it takes; `options` may refuse connections, logins, recipients and mails. */
export async function mailServer(
  t: Test,
  options: SMTPServerOptions = {},
): Promise<{ port: number; mails: ReceivedMail[] }> {
  const mails: ReceivedMail[] = []
  const server = new SMTPServer({
    authOptional: true,
    logger: false,
    disableReverseLookup: true,
    ...options,
    onData(stream, session, callback) {
      const chunks: Buffer[] = []
      stream.on('data', (chunk: Buffer) => chunks.push(chunk))
      stream.on('end', () => {
        const { mailFrom, rcptTo } = session.envelope
        const from = mailFrom === false ? '' : mailFrom.address
        const to = rcptTo.map(({ address }) => address)
        const user = typeof session.user === 'string' ? session.user : undefined
        mails.push({ from, to, text: Buffer.concat(chunks).toString(), secure: session.secure, user })
        callback()
      })
    },
  })
  // A client that gives up is part of some tests.
  server.on('error', () => undefined)
  const listening = server.listen(0, '127.0.0.1')
  await once(listening, 'listening')
  t.teardown(() => new Promise<void>(resolve => server.close(resolve)))
  return { port: (listening.address() as AddressInfo).port, mails }
}

/** An answer of SMTP with its code. */
export function smtpError(responseCode: number, message: string): Error {
  return Object.assign(new Error(message), { responseCode })
}
