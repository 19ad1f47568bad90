import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'

/** A TCP relay on a loopback address in front of a real server, whose connections a test can cut, freeze and refuse. */
export class TcpProxy {
  readonly #server: Server
  readonly #sockets: { client: Socket; upstream: Socket }[] = []
  #refusing = false
  accepted = 0

  static async start(targetPort: number, host = '127.0.0.1', port = 0): Promise<TcpProxy> {
    const proxy = new TcpProxy(targetPort)
    proxy.#server.listen(port, host)
    await once(proxy.#server, 'listening')
    return proxy
  }

  private constructor(targetPort: number) {
    this.#server = createServer(client => {
      if (this.#refusing) return void client.destroy()
      this.accepted++
      const upstream = connect(targetPort, '127.0.0.1')
      const end = () => {
        client.destroy()
        upstream.destroy()
      }
      for (const socket of [client, upstream]) socket.on('error', end).on('close', end)
      client.pipe(upstream)
      upstream.pipe(client)
      this.#sockets.push({ client, upstream })
    })
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  /** Cuts the n-th connection made so far. */
  cut(index: number): void {
    this.#sockets[index]?.client.destroy()
  }

  /** Cuts all connections and accepts no more until `accept`. */
  refuse(): void {
    this.#refusing = true
    for (const { client } of this.#sockets) client.destroy()
  }

  accept(): void {
    this.#refusing = false
  }

  /** From now on nothing of what the server says arrives, as if the network swallowed it. */
  freeze(): void {
    for (const { client, upstream } of this.#sockets) {
      upstream.unpipe(client)
      upstream.pause()
    }
  }

  /** From now on nothing of what the clients say arrives. */
  mute(): void {
    for (const { client, upstream } of this.#sockets) {
      client.unpipe(upstream)
      client.pause()
    }
  }

  async stop(): Promise<void> {
    this.refuse()
    this.#server.close()
    await once(this.#server, 'close')
  }
}
