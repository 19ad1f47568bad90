import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Frame, FrameSplitter, FrameStatus, FrameType, headerBytes, sealFrame } from '../../libvirt/frame.js'
import { type Procedure, Program, procedures } from '../../libvirt/procedures.js'
import { XdrReader, XdrWriter } from '../../libvirt/xdr.js'

type Write = (writer: XdrWriter) => unknown

/** One call a client made, and the ways to answer it. */
export class FakeCall {
  readonly arguments: XdrReader
  readonly socket: Socket
  readonly #frame: Frame

  constructor(frame: Frame, socket: Socket) {
    this.#frame = frame
    this.socket = socket
    this.arguments = new XdrReader(Buffer.from(frame.payload), `call ${frame.procedure}`)
  }

  get serial(): number {
    return this.#frame.serial
  }

  /** The bytes of an answer, to be sent whole, in part or wrong. */
  frame(write?: Write, change: { serial?: number; status?: number; procedure?: number; type?: number } = {}): Buffer {
    const writer = new XdrWriter(headerBytes)
    write?.(writer)
    const { program, procedure, serial } = this.#frame
    return sealFrame(writer.finish(), { program, procedure, serial, type: FrameType.reply, ...change })
  }

  reply(write?: Write): void {
    this.socket.write(this.frame(write))
  }

  fail(code: number, text: string): void {
    const write: Write = writer =>
      writer
        .i32(code)
        .i32(10)
        .optionalString(text)
        .i32(2)
        .bool(false)
        .optionalString('first')
        .optionalString(undefined)
        .optionalString(undefined)
        .i32(7)
        .i32(-1)
        .bool(false)
    this.socket.write(this.frame(write, { status: FrameStatus.error }))
  }
}

type Handler = (call: FakeCall) => void

/**
 * A libvirt daemon that speaks the real protocol and does with each call what the test says; calls it was told nothing
 * about are never answered. Opening a connection works unless told otherwise.
 */
export class FakeLibvirtd {
  readonly directory = mkdtempSync(join(tmpdir(), 'fake-libvirtd-'))
  readonly socketPath = join(this.directory, 'sock')
  readonly sockets = new Set<Socket>()
  /** Names of the procedures called, in order. */
  readonly called: string[] = []
  /** Connections accepted so far. */
  accepted = 0
  readonly #handlers = new Map<string, Handler>()
  readonly #waiters: { name: string; times: number; resolve: () => void }[] = []
  #server: Server | undefined
  #otherwise: Handler | undefined

  static async start(): Promise<FakeLibvirtd> {
    const daemon = new FakeLibvirtd()
    daemon.on(procedures.authList, call => call.reply(writer => writer.u32(1).i32(0)))
    daemon.on(procedures.connectOpen, call => call.reply())
    daemon.on(procedures.supportsFeature, call => call.reply(writer => writer.i32(1)))
    await daemon.listen()
    return daemon
  }

  get uri(): string {
    return `qemu:///system?socket=${this.socketPath}`
  }

  /** Says what to do with calls of a procedure. */
  on(procedure: Procedure, handler: Handler): void {
    this.#handlers.set(`${procedure.program} ${procedure.number}`, handler)
  }

  /** Says what to do with calls of every procedure that nothing was said about. */
  onOther(handler: Handler): void {
    this.#otherwise = handler
  }

  /** Forgets what to do with a procedure: its calls are never answered. */
  ignore(procedure: Procedure): void {
    this.#handlers.delete(`${procedure.program} ${procedure.number}`)
  }

  /** Resolves when a procedure has been called so many times since the start. */
  async untilCalled(procedure: Procedure, times = 1): Promise<void> {
    if (this.count(procedure) >= times) return
    await new Promise<void>(resolve => this.#waiters.push({ name: procedure.name, times, resolve }))
  }

  count(procedure: Procedure): number {
    return this.called.filter(name => name === procedure.name).length
  }

  /** Sends bytes to every client. */
  broadcast(bytes: Buffer): void {
    for (const socket of this.sockets) socket.write(bytes)
  }

  /** A message the daemon sends of itself. */
  message(procedure: number, write: Write, program: number = Program.remote): Buffer {
    const writer = new XdrWriter(headerBytes)
    write(writer)
    return sealFrame(writer.finish(), { program, procedure, type: FrameType.message, serial: 0 })
  }

  async listen(): Promise<void> {
    const server = createServer(socket => this.#accept(socket))
    this.#server = server
    await new Promise<void>(resolve => server.listen(this.socketPath, resolve))
  }

  /** Ends listening and every connection, as a daemon that is stopped. */
  async stop(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    for (const socket of this.sockets) socket.destroy()
    if (server !== undefined) await new Promise<void>(resolve => server.close(() => resolve()))
  }

  async remove(): Promise<void> {
    await this.stop()
    rmSync(this.directory, { recursive: true, force: true })
  }

  #accept(socket: Socket): void {
    this.accepted += 1
    this.sockets.add(socket)
    socket.on('close', () => this.sockets.delete(socket))
    socket.on('error', () => undefined)
    const splitter = new FrameSplitter()
    socket.on('data', (chunk: Buffer) => splitter.push(chunk, frame => this.#dispatch(frame, socket)))
  }

  #dispatch(frame: Frame, socket: Socket): void {
    const known = Object.values(procedures).find(
      procedure => procedure.program === frame.program && procedure.number === frame.procedure,
    )
    this.called.push(known?.name ?? `${frame.program.toString(16)} ${frame.procedure}`)
    const handler = this.#handlers.get(`${frame.program} ${frame.procedure}`) ?? this.#otherwise
    handler?.(new FakeCall(frame, socket))
    for (const waiter of [...this.#waiters]) {
      if (this.called.filter(name => name === waiter.name).length < waiter.times) continue
      this.#waiters.splice(this.#waiters.indexOf(waiter), 1)
      waiter.resolve()
    }
  }
}
