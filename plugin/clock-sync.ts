import { createSocket } from 'node:dgram'
import type { Address } from './address.js'

/** How well a daemon keeps the clock, as it says itself. */
export interface ClockSync {
  /** Whether it has a source it follows. */
  readonly synchronized: boolean
  /** Steps from a reference clock; 16 is none. */
  readonly stratum: number
  /** How far the clock is off, in milliseconds; which direction is positive differs between daemons. */
  readonly offsetMs: number
}

/** A datagram may be lost even on loopback, when its receiver is busy. */
const tries = 3
const retryMs = 1000

/** Asks ntpd with a control message (mode 6 of NTP, RFC 9327). Throws when there is no answer, or none that says it. */
export async function askNtpd(address: Address, signal: AbortSignal): Promise<ClockSync> {
  const variables = 'stratum,offset'
  const sequence = 1
  const request = Buffer.alloc(28)
  request[0] = 0x16 // version 2, mode 6
  request[1] = 2 // read variables, of the system itself (association 0)
  request.writeUInt16BE(sequence, 2)
  request.writeUInt16BE(variables.length, 10)
  request.write(variables, 12, 'latin1')
  const reply = await exchange(
    address,
    request,
    signal,
    message => message.length >= 12 && ((message[1] ?? 0) & 0x9f) === 0x82 && message.readUInt16BE(2) === sequence,
  )
  const text = reply.toString('latin1', 12, 12 + reply.readUInt16BE(10))
  const stratum = /\bstratum=(\d+)/.exec(text)?.[1]
  const offset = /\boffset=([-+]?[\d.]+)/.exec(text)?.[1]
  if (stratum === undefined || offset === undefined) throw new Error(`ntpd does not tell stratum and offset`)
  // The status word: leap indicator (2 bits), clock source (6; 0 is none yet), events (8).
  const source = (reply.readUInt16BE(4) >> 8) & 0x3f
  return { synchronized: source !== 0, stratum: Number(stratum), offsetMs: Number(offset) }
}

const chronyReply = { bytes: 104, command: 4, reply: 6, status: 8, sequence: 16, stratum: 52, leap: 54, correction: 68 }
const tracking = { request: 33, reply: 5 }
const chronySequence = 0x73_6b_76_6d
const chronyUnsynchronized = 3

/** Asks chronyd for its tracking report (version 6 of chrony's command protocol). Throws when there is no answer, or none that says it. */
export async function askChronyd(address: Address, signal: AbortSignal): Promise<ClockSync> {
  // As long as the reply: chronyd does not answer at greater length than it was asked.
  const request = Buffer.alloc(chronyReply.bytes)
  request[0] = 6
  request[1] = 1
  request.writeUInt16BE(tracking.request, 4)
  request.writeUInt32BE(chronySequence, 8)
  const isReply = (message: Buffer) =>
    message.length >= 28 && message[1] === 2 && message.readUInt32BE(chronyReply.sequence) === chronySequence
  const reply = await exchange(address, request, signal, isReply)
  const status = reply.readUInt16BE(chronyReply.status)
  if (status !== 0 || reply.length < chronyReply.bytes || reply.readUInt16BE(chronyReply.reply) !== tracking.reply) {
    throw new Error(`chronyd does not tell how it tracks (status ${status})`)
  }
  return {
    synchronized: reply.readUInt16BE(chronyReply.leap) !== chronyUnsynchronized,
    stratum: reply.readUInt16BE(chronyReply.stratum),
    offsetMs: chronyFloat(reply.readUInt32BE(chronyReply.correction)) * 1000,
  }
}

/** chrony's own floating point: 7 bits of exponent and 25 of coefficient, both in two's complement. */
function chronyFloat(bits: number): number {
  return ((bits << 7) >> 7) * 2 ** ((bits >> 25) - 25)
}

/** Sends a datagram until one comes back that is the reply. A port nobody listens on is an error at once. */
function exchange(
  { host, port }: Address,
  request: Buffer,
  signal: AbortSignal,
  isReply: (message: Buffer) => boolean,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = createSocket({ type: host.includes(':') ? 'udp6' : 'udp4', signal })
    let sent = 0
    const send = () => {
      if (sent++ < tries) socket.send(request)
      else end(() => reject(new Error(`no answer from ${host}:${port}`)))
    }
    const timer = setInterval(send, retryMs)
    const end = (settle: () => void) => {
      clearInterval(timer)
      socket.close()
      settle()
    }
    socket.on('error', error => end(() => reject(error)))
    socket.on('close', () => {
      clearInterval(timer)
      reject(new Error('stopped'))
    })
    socket.on('message', message => {
      if (isReply(message)) end(() => resolve(message))
    })
    socket.connect(port, host, send)
  })
}
