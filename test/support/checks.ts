import { execFile } from 'node:child_process'
import { chmodSync, copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Context } from '../../plugin/check.js'
import { PendingReads } from '../../plugin/pending-reads.js'
import { MemoryState } from '../../plugin/state.js'
import { projectDirectory } from '../../scripts/services/process.js'

/** What a check's `collect` gets besides host and options: state in memory, all guests selected, ten seconds left. */
export function checkContext(changes: Partial<Context> = {}): Context {
  return {
    signal: new AbortController().signal,
    uri: 'qemu:///system',
    stage: () => undefined,
    state: new MemoryState().open({ check: 'check', uri: '', options: {}, directory: undefined }),
    variables: {},
    pending: new PendingReads(),
    path: absolute => absolute,
    now: Date.now,
    timeLeftMs: () => 10_000,
    selectGuests: guests => [...guests],
    ...changes,
  }
}

/** What an executable printed and exited with. */
export interface ExecutableResult {
  readonly stdout: string
  readonly stderr: string
  readonly status: number | string
}

export interface ExecutableOptions {
  /** Added to the environment, which has nothing of this project's own variables. */
  readonly env?: Readonly<Record<string, string>>
  /** The user to run as; needs root. */
  readonly uid?: number
}

const executableTimeoutMs = 60_000

/** Runs a built executable, `dist/bin/<name>`, to its end. */
export function runExecutable(
  name: string,
  args: readonly string[],
  options: ExecutableOptions = {},
): Promise<ExecutableResult> {
  const file = join(projectDirectory(), 'dist/bin', name)
  return options.uid === undefined ? execute(file, args, options) : executeCopy(name, file, args, options)
}

/** Another user may not be allowed to see the project's folder. */
async function executeCopy(name: string, file: string, args: readonly string[], options: ExecutableOptions) {
  const directory = mkdtempSync(join(tmpdir(), 'sensu-kvm-'))
  try {
    chmodSync(directory, 0o755)
    copyFileSync(file, join(directory, name))
    return await execute(join(directory, name), args, options)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

function execute(
  file: string,
  args: readonly string[],
  { env = {}, uid }: ExecutableOptions,
): Promise<ExecutableResult> {
  const options = {
    timeout: executableTimeoutMs,
    env: { PATH: process.env['PATH'], TMPDIR: process.env['TMPDIR'], ...env },
    ...(uid === undefined ? {} : { uid, gid: uid }),
  }
  return new Promise(resolve => {
    execFile(file, args, options, (error, stdout, stderr) => {
      const status = error === null ? 0 : (error.code ?? error.signal ?? error.message)
      resolve({ stdout, stderr, status })
    })
  })
}
