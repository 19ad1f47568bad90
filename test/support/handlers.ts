import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'
import { projectDirectory } from '../../scripts/services/process.js'

/** An event as Sensu 1.9 hands it to a handler: a guest's memory, reported by its host, critical for ten minutes. */
export function guestEvent(changes: { check?: object; client?: object } & Record<string, unknown> = {}): object {
  const { check, client, ...others } = changes
  return {
    id: '7c5e0e2f-1111-4222-8333-444455556666',
    client: { name: 'web1', address: 'unknown', subscriptions: ['client:web1'], keepalives: false, ...client },
    check: {
      name: 'memory_check',
      command: 'check-kvm-memory --per-guest -w 80 -c 90',
      source: 'web1',
      status: 2,
      output:
        'check-kvm-memory CRITICAL: web1: memory in use 95 % (critical above 90 %)\nCRITICAL web1: memory in use 95 %\n| web1.used_percent=95%;80;90\n',
      executed: 1_767_607_200,
      issued: 1_767_607_200,
      duration: 0.1,
      type: 'standard',
      origin: 'kvm-host',
      history: ['0', '0', '1', '2', '2'],
      total_state_change: 8,
      ...check,
    },
    occurrences: 2,
    occurrences_watermark: 2,
    last_ok: 1_767_606_000,
    action: 'create',
    timestamp: 1_767_607_200,
    last_state_change: 1_767_606_600,
    silenced: false,
    silenced_by: [],
    ...others,
  }
}

/** The same guest when it is well again. */
export function resolvedEvent(): object {
  return guestEvent({
    check: { status: 0, output: 'check-kvm-memory OK: web1: memory in use 40 %\n', history: ['0', '1', '2', '2', '0'] },
    occurrences: 1,
    last_ok: 1_767_607_260,
    last_state_change: 1_767_607_260,
    timestamp: 1_767_607_260,
    action: 'resolve',
  })
}

/** What a handler printed and exited with, and how long it took. */
export interface HandlerResult {
  readonly stdout: string
  readonly stderr: string
  readonly status: number | null
  readonly ms: number
}

/** Runs a built handler with arguments, standard input (an event, or text as it is) and nothing but these variables of this project's in its environment. */
export function runHandler(
  name: string,
  argv: readonly string[],
  input: object | string,
  env: Readonly<Record<string, string>> = {},
): Promise<HandlerResult> {
  const startedMs = performance.now()
  return new Promise((resolve, reject) => {
    const variables = { PATH: process.env['PATH'], TMPDIR: process.env['TMPDIR'], ...env }
    const child = spawn(join(projectDirectory(), 'dist/bin', name), argv, { env: variables, timeout: 60_000 })
    const output = { stdout: '', stderr: '' }
    child.stdout.setEncoding('utf8').on('data', text => {
      output.stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', text => {
      output.stderr += text
    })
    child.once('error', reject)
    child.once('close', status => resolve({ ...output, status, ms: performance.now() - startedMs }))
    // A handler may end before it has read everything.
    child.stdin.on('error', () => undefined)
    child.stdin.end(typeof input === 'string' ? input : JSON.stringify(input))
  })
}

/** Writes a configuration with one section into the test's directory, and returns the options that lead a handler to it. */
export function sectionFile(t: Test, section: string, settings: object, name = 'handler.json'): string[] {
  const path = join(t.testdirName, name)
  writeFileSync(path, JSON.stringify({ [section]: settings }))
  return ['-c', path]
}

/** One request as a server got it. */
export interface Received {
  readonly method: string | undefined
  readonly url: string | undefined
  readonly headers: IncomingHttpHeaders
  readonly body: string
  readonly atMs: number
}

/** What a server does about a request. */
export type Reply =
  | { status: number; headers?: Record<string, string>; body?: string }
  | 'hang'
  | 'drop'
  | 'drop in the answer'

/** An HTTP server on loopback that answers the requests in turn as it is told, the last reply being repeated, and keeps what it got. */
export async function httpReceiver(
  t: Test,
  replies: readonly Reply[],
): Promise<{ origin: string; port: number; received: Received[] }> {
  const received: Received[] = []
  const server: Server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', chunk => chunks.push(chunk))
    request.on('end', () => {
      const { method, url, headers } = request
      received.push({ method, url, headers, body: Buffer.concat(chunks).toString(), atMs: performance.now() })
      const reply = replies[Math.min(received.length, replies.length) - 1] ?? 'drop'
      if (reply === 'hang') return
      if (reply === 'drop') request.socket.destroy()
      else if (reply === 'drop in the answer') {
        response.writeHead(200, { 'Content-Length': '100' })
        response.write('half', () => request.socket.destroy())
      } else response.writeHead(reply.status, reply.headers).end(reply.body ?? '')
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    return new Promise(resolve => server.close(resolve))
  })
  const { port } = server.address() as AddressInfo
  return { origin: `http://127.0.0.1:${port}`, port, received }
}
