import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { hostname } from 'node:os'
import { largestEventBytes } from './event.js'
import {
  type HandlerEnvironment,
  type HandlerProgram,
  type HandlerResult,
  handlerFailure,
  runHandler,
} from './handler-program.js'

/** A secret's file is a few bytes. */
const largestSecretBytes = 65_536

/**
 * Runs a handler as this process: reads one event on standard input, writes what it did once and leaves the status as the exit code. `loadSection`
 * reads the configuration.
 */
export async function main(program: HandlerProgram, loadSection: HandlerEnvironment['loadSection']): Promise<void> {
  let finished = false
  const finishOnce = (result: HandlerResult) => {
    if (!finished) finish(result)
    finished = true
  }
  process.on('uncaughtException', error => finishOnce(handlerFailure(program.handler.name, error)))
  const result = await runHandler(program, process.argv.slice(2), {
    loadSection,
    readFile: readSecretFile,
    readInput: readStandardInput,
    now: Date.now,
    random: Math.random,
    variables: process.env,
    hostname: hostname(),
  })
  finishOnce(result)
}

/** A FIFO or a device is refused, as it might never end. */
function readSecretFile(path: string): string {
  // Opening a FIFO would wait for somebody to write to it.
  const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    if (!fstatSync(file).isFile()) throw new Error('it is no regular file')
    const bytes = Buffer.alloc(largestSecretBytes)
    return bytes.toString('utf8', 0, readSync(file, bytes))
  } finally {
    closeSync(file)
  }
}

async function readStandardInput(signal: AbortSignal): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    signal.throwIfAborted()
    size += chunk.length
    if (size > largestEventBytes)
      throw new Error(`the event is larger than ${largestEventBytes} bytes: nothing was sent`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

function finish({ stdout, stderr, status }: HandlerResult): void {
  process.exitCode = status
  // Whoever reads the output may have gone (EPIPE); the status still counts.
  process.stdout.on('error', () => undefined)
  process.stderr.on('error', () => undefined)
  // Nothing is waited for once the output is out: not what was left hanging after a timeout.
  process.stderr.write(stderr, () => process.stdout.write(stdout, () => process.exit()))
}
