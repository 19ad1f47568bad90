import { LibvirtConnectionError } from './errors.js'
import { maximumFrameBytes } from './xdr.js'

/** A frame's header: length, program, version, procedure, type, serial, status; 4 bytes each. */
export const headerBytes = 28
const protocolVersion = 1

export const FrameType = { call: 0, reply: 1, message: 2, stream: 3 } as const
export const FrameStatus = { ok: 0, error: 1, continue: 2 } as const

export interface Frame {
  program: number
  procedure: number
  type: number
  serial: number
  status: number
  /** Shares memory with what came from the socket: read it now or copy. */
  payload: Buffer
}

/** Fills in the header of a message written behind `headerBytes` of reserved room. Returns the message. */
export function sealFrame(
  message: Buffer,
  header: { program: number; procedure: number; type: number; serial: number; status?: number },
): Buffer {
  message.writeUInt32BE(message.length, 0)
  message.writeUInt32BE(header.program, 4)
  message.writeUInt32BE(protocolVersion, 8)
  message.writeInt32BE(header.procedure, 12)
  message.writeUInt32BE(header.type, 16)
  message.writeUInt32BE(header.serial, 20)
  message.writeUInt32BE(header.status ?? FrameStatus.ok, 24)
  return message
}

/**
 * Cuts a byte stream into frames. Chunks of an unfinished frame are kept as they came and joined once, when the last
 * one is there; a length outside 28 to 33,554,436 is refused at once, before anything is allocated for it.
 */
export class FrameSplitter {
  #chunks: Buffer[] = []
  #bytes = 0
  /** Length of the frame being collected; 0 until its first 4 bytes are there. */
  #wanted = 0

  /** Takes what arrived and calls `onFrame` for every frame completed by it. Throws LibvirtConnectionError `protocol`. */
  push(chunk: Buffer, onFrame: (frame: Frame) => void): void {
    let rest = this.#bytes === 0 ? chunk : this.#collect(chunk)
    while (rest !== undefined && rest.length >= 4) {
      const length = frameLength(rest)
      if (rest.length < length) {
        this.#wanted = length
        break
      }
      const frame = rest.subarray(0, length)
      rest = rest.subarray(length)
      onFrame(parseFrame(frame))
    }
    if (rest !== undefined && rest.length > 0) {
      this.#chunks = [rest]
      this.#bytes = rest.length
    }
  }

  /** Adds to an unfinished frame; returns everything joined once it is long enough to go on. */
  #collect(chunk: Buffer): Buffer | undefined {
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    if (this.#bytes < Math.max(this.#wanted, 4)) return undefined
    const joined = Buffer.concat(this.#chunks, this.#bytes)
    this.#chunks = []
    this.#bytes = 0
    this.#wanted = 0
    return joined
  }
}

function frameLength(bytes: Buffer): number {
  const length = bytes.readUInt32BE(0)
  if (length < headerBytes || length > maximumFrameBytes) {
    throw new LibvirtConnectionError(
      'protocol',
      `not libvirt's protocol: a frame of ${length} bytes was announced, ${headerBytes} to ${maximumFrameBytes} are possible`,
    )
  }
  return length
}

function parseFrame(frame: Buffer): Frame {
  const version = frame.readUInt32BE(8)
  if (version !== protocolVersion) {
    throw new LibvirtConnectionError('protocol', `not libvirt's protocol: version ${version} instead of 1`)
  }
  return {
    program: frame.readUInt32BE(4),
    procedure: frame.readInt32BE(12),
    type: frame.readUInt32BE(16),
    serial: frame.readUInt32BE(20),
    status: frame.readUInt32BE(24),
    payload: frame.subarray(headerBytes),
  }
}
