import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import type { DialOptions } from './dial.js'
import { LibvirtConnectionError } from './errors.js'
import type { Target } from './uri.js'
import type { Wire } from './wire.js'

/** How much of ssh's error output is kept for messages. */
const maximumErrorText = 2000

/** Quotes a word for the remote shell, which ssh always puts in between. */
function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}

/** The command to run on the remote host: libvirt's helper, or netcat for hosts older than libvirt 6.8. */
function remoteCommand(target: Target, access: DialOptions['access']): string[] {
  const netcat = target.parameters.get('netcat')
  if (target.parameters.get('proxy') === 'netcat' || netcat !== undefined) {
    const socket = target.parameters.get('socket') ?? `/var/run/libvirt/libvirt-sock${access === 'read' ? '-ro' : ''}`
    return [netcat ?? 'nc', '-U', socket]
  }
  return ['virt-ssh-helper', ...(access === 'read' ? ['-r'] : []), target.remoteUri]
}

/** ssh's arguments for a target. Throws LibvirtConnectionError when host or user would be read as an option. */
export function sshArguments(target: Target, options: Pick<DialOptions, 'access' | 'timeoutMs'>): string[] {
  for (const word of [target.host, target.user ?? '']) {
    if (word.startsWith('-')) {
      throw new LibvirtConnectionError(
        'unsupported-uri',
        `cannot use ${target.uri}: "${word}" is not a host or user name`,
      )
    }
  }
  const keyFile = target.parameters.get('keyfile')
  return [
    ...['-T', '-e', 'none', '-o', 'BatchMode=yes'],
    ...['-o', `ConnectTimeout=${Math.max(1, Math.ceil(options.timeoutMs / 1000))}`],
    ...(target.parameters.get('no_verify') === '1' ? ['-o', 'StrictHostKeyChecking=no'] : []),
    ...(keyFile === undefined ? [] : ['-i', keyFile]),
    ...(target.port === undefined ? [] : ['-p', String(target.port)]),
    ...(target.user === undefined ? [] : ['-l', target.user]),
    '--',
    target.host,
    ...remoteCommand(target, options.access).map(shellWord),
  ]
}

/**
 * Starts ssh and speaks through its standard input and output. ssh never asks for anything (BatchMode): keys must be
 * in place. The command is `sshCommand`, the URI's `?command=`, or `ssh`.
 */
export async function dialSsh(target: Target, options: DialOptions): Promise<Wire> {
  const command = options.sshCommand ?? target.parameters.get('command') ?? 'ssh'
  const child = spawn(command, sshArguments(target, options), { stdio: ['pipe', 'pipe', 'pipe'] })
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve)
    child.once('error', error =>
      reject(new LibvirtConnectionError('refused', `cannot run ${command} for ${target.uri}: ${error.message}`, error)),
    )
  })
  return wireOfChild(child, target)
}

function wireOfChild(child: ChildProcess, target: Target): Wire {
  const { stdin, stdout, stderr } = child
  if (stdin === null || stdout === null || stderr === null) throw new Error('ssh was started without its pipes')
  let errorText = ''
  stderr.on('data', (chunk: Buffer) => {
    if (errorText.length < maximumErrorText) errorText = (errorText + chunk.toString()).slice(0, maximumErrorText)
  })
  // Ends only when ssh has, so that what it says about the reason is there by then.
  const readable = new PassThrough()
  stdout.on('error', error => readable.destroy(error))
  stdout.pipe(readable, { end: false })
  Promise.all([once(stdout, 'end'), once(child, 'exit')]).then(
    () => setImmediate(() => readable.end()),
    () => readable.end(),
  )
  // Node types the pipes as plain streams; they are sockets and hold the process like any socket.
  const handles = [stdin, stdout, stderr] as unknown as Socket[]
  return {
    readable,
    writable: stdin,
    destroy: () => {
      for (const stream of [stdin, stdout, stderr, readable]) stream.destroy()
      child.kill()
    },
    ref: () => {
      child.ref()
      for (const handle of handles) handle.ref()
    },
    unref: () => {
      child.unref()
      for (const handle of handles) handle.unref()
    },
    explain: () => {
      const text = errorText.trim().replaceAll(/\s*\n\s*/g, '; ')
      return text === '' ? undefined : `ssh to ${target.host} says: ${text}`
    },
  }
}
