import { once } from 'node:events'
import { connect } from 'node:net'

/** Hands check results, or any bytes, to the agent's TCP socket as one document, as a local program does; returns the agent's answer. */
export async function submit(port: number, results: readonly object[] | Buffer): Promise<string> {
  const document = Buffer.isBuffer(results) ? results : JSON.stringify(results)
  const socket = connect(port, '127.0.0.1', () => socket.write(document))
  const chunks: Buffer[] = []
  socket.on('data', chunk => chunks.push(chunk))
  await once(socket, 'close')
  return Buffer.concat(chunks).toString()
}
