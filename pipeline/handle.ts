import { createSocket } from 'node:dgram'
import { connect } from 'node:net'
import { isObject, toNumber } from '../sensu/json-value.js'
import type { Logger } from '../sensu/log.js'
import type { Spawner } from '../sensu/spawn.js'
import type { Json, JsonObject } from '../sensu/types.js'
import type { BuiltInHandler } from './built-in-handlers.js'
import type { NamedHandler } from './resolve-handlers.js'

/** Sensu's default for tcp handlers. Pipe handlers have none. */
const socketTimeoutSeconds = 10

/** Sends event data to a pipe of the message transport, for handlers of type transport. */
export type PublishEvent = (pipe: JsonObject, data: Buffer) => Promise<void>

/** What handlers are run with. */
export interface HandlerSurroundings {
  spawner: Spawner
  logger: Logger
  publish?: PublishEvent | undefined
  builtIn: Readonly<Record<string, BuiltInHandler>>
}

/** Hands event data to one handler and logs what came of it. Never rejects: a handler's failure is its own. */
export async function callHandler(
  handler: NamedHandler,
  data: Buffer,
  eventId: Json,
  surroundings: HandlerSurroundings,
): Promise<void> {
  const { logger } = surroundings
  try {
    switch (handler['type']) {
      case 'pipe':
        return await callPipe(handler, data, eventId, surroundings)
      case 'tcp':
        return await callTcp(handler, data)
      case 'udp':
        return await callUdp(handler, data)
      case 'transport':
        return await callTransport(handler, data, surroundings)
      case 'extension':
        return await callBuiltIn(handler, data, eventId, surroundings)
      default:
        throw new Error(`unknown handler type ${String(handler['type'])}`)
    }
  } catch (error) {
    logger.error('handler error', {
      handler,
      event: { id: eventId },
      event_data: data.toString(),
      error: error instanceof Error ? error.message : String(error),
    })
  }
}

async function callPipe(
  handler: NamedHandler,
  data: Buffer,
  eventId: Json,
  { spawner, logger }: HandlerSurroundings,
): Promise<void> {
  const { command, timeout } = handler
  const { output, status } = await spawner.run({ command, stdin: data, timeoutSeconds: timeout })
  const entry = { handler, event: { id: eventId }, output: output.length > 0 ? [output.toString()] : [] }
  if (status === 0) logger.info('handler output', entry)
  else logger.error('handler output', entry)
}

function callTcp(handler: NamedHandler, data: Buffer): Promise<void> {
  if (data.length === 0) return Promise.resolve()
  const address = socketAddress(handler)
  const timeoutMs = (toNumber(handler['timeout']) ?? socketTimeoutSeconds) * 1000
  return new Promise((resolve, reject) => {
    const socket = connect(address)
    let connected = false
    const timer = setTimeout(() => fail('socket timeout'), timeoutMs)
    const fail = (reason: string) => {
      clearTimeout(timer)
      socket.destroy()
      reject(new Error(reason))
    }
    socket.on('connect', () => {
      connected = true
      socket.end(data, () => socket.destroySoon())
    })
    socket.on('error', error => fail(connected ? error.message : 'failed to connect to socket'))
    socket.on('close', () => {
      clearTimeout(timer)
      resolve()
    })
    // The other side's words are of no interest, but its end must be noticed.
    socket.resume()
  })
}

function callUdp(handler: NamedHandler, data: Buffer): Promise<void> {
  const { host, port } = socketAddress(handler)
  return new Promise((resolve, reject) => {
    const socket = createSocket('udp4')
    const finish = (error?: Error | null) => {
      socket.close()
      if (error) reject(error)
      else resolve()
    }
    socket.once('error', finish)
    socket.send(data, port, host, finish)
  })
}

async function callTransport(handler: NamedHandler, data: Buffer, { publish }: HandlerSurroundings): Promise<void> {
  const pipe = handler['pipe']
  if (data.length === 0) return
  if (publish === undefined || !isObject(pipe))
    throw new Error('no message transport is at hand for handlers of type transport')
  await publish(pipe, data)
}

async function callBuiltIn(
  handler: NamedHandler,
  data: Buffer,
  eventId: Json,
  { builtIn, logger }: HandlerSurroundings,
): Promise<void> {
  const run = builtIn[handler.name]
  if (run === undefined) throw new Error(`there is no extension ${handler.name}`)
  const { output, status } = await run(data)
  const entry = { extension: handler, event: { id: eventId }, output, status }
  if (output === '' && status === 0) logger.debug('handler extension output', entry)
  else logger.info('handler extension output', entry)
}

function socketAddress(handler: NamedHandler): { host: string; port: number } {
  const socket = handler['socket']
  if (!isObject(socket) || typeof socket['port'] !== 'number') throw new Error('handler has no socket host and port')
  return { host: String(socket['host'] ?? '127.0.0.1'), port: socket['port'] }
}
