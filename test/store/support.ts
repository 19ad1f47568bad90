import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import { startRedis } from '../../scripts/services/redis.js'
import type { JsonObject } from '../../sensu/types.js'
import type { ResultInput } from '../../store/result-script.js'
import { Store, type StoreLimits, type StoreNotices } from '../../store/store.js'

/** A private Redis with a store on it and a plain connection to look into it; all stopped with the test. */
export async function startStore(t: Test, notices: StoreNotices = {}, limits: Partial<StoreLimits> = {}) {
  const server = await startRedis({ durable: true })
  const store = await Store.connect(server.url, notices, limits)
  const redis = new Redis(server.url)
  redis.on('error', () => {})
  t.teardown(async () => {
    store.close()
    redis.disconnect()
    await server.stop()
  })
  return { server, store, redis }
}

/** A result of client `c`, check `k`. */
export function resultInput(status: number, more: JsonObject = {}, rest: Partial<ResultInput> = {}): ResultInput {
  return {
    client: 'c',
    nowSeconds: 1000,
    ...rest,
    check: { name: 'k', type: 'standard', status, output: 'x', ...more },
  }
}

/** A TCP relay to a port that can lose what comes back: Redis does the work, and its answer never arrives. */
export class LossyRelay {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  #losing = false
  #onLost: () => void = () => {}

  private constructor(target: number) {
    this.#server = createServer(near => {
      const far = connect(target, '127.0.0.1')
      for (const socket of [near, far]) {
        this.#sockets.add(socket)
        socket.on('error', () => {})
        socket.on('close', () => {
          this.#sockets.delete(socket)
          near.destroy()
          far.destroy()
        })
      }
      near.pipe(far)
      far.on('data', data => {
        if (!this.#losing) near.write(data)
        else {
          near.destroy()
          this.#onLost()
        }
      })
    })
  }

  static async start(t: Test, target: number): Promise<LossyRelay> {
    const relay = new LossyRelay(target)
    relay.#server.listen(0, '127.0.0.1')
    await once(relay.#server, 'listening')
    t.teardown(() => {
      relay.#server.close()
      for (const socket of relay.#sockets) socket.destroy()
    })
    return relay
  }

  get port(): number {
    const address = this.#server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  }

  /** The next answer is lost and the connection with it; everything after that passes again. */
  loseNextAnswer(): Promise<void> {
    this.#losing = true
    return new Promise(resolve => {
      this.#onLost = () => {
        this.#losing = false
        resolve()
      }
    })
  }
}
