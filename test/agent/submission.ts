import { once } from 'node:events'
import { connect } from 'node:net'

/** Hands check results to the agent's TCP socket as one document, as a local program does; returns the agent's answer. */
export async function submit(port: number, results: readonly object[]): Promise<string> {
  const socket = connect(port, '127.0.0.1', () => socket.write(JSON.stringify(results)))
  const chunks: Buffer[] = []
  socket.on('data', chunk => chunks.push(chunk))
  await once(socket, 'close')
  return Buffer.concat(chunks).toString()
}
