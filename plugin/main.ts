import { hostname } from 'node:os'
import { sendResults } from './agent-socket.js'
import { FileState } from './file-state.js'
import { PendingReads } from './pending-reads.js'
import { type CheckProgram, type Environment, failure, type RunResult, runCheck } from './program.js'

/**
 * Runs a check as this process: writes its output once and leaves its status as the exit code. A check of this machine alone is run
 * without `openHost`.
 */
export async function main<Host>(
  program: CheckProgram<Host>,
  openHost: Environment<Host>['openHost'] = withoutHost,
): Promise<void> {
  let finished = false
  const finishOnce = (result: RunResult) => {
    if (!finished) finish(result)
    finished = true
  }
  process.on('uncaughtException', error => finishOnce(failure(program.check, error)))
  const result = await runCheck(program, process.argv.slice(2), {
    openHost,
    state: new FileState(process.env),
    pending: new PendingReads(),
    now: Date.now,
    hostname: hostname(),
    variables: process.env,
    deliver: sendResults,
  })
  finishOnce(result)
}

function withoutHost(): Promise<never> {
  return Promise.reject(new Error('this program knows no way to libvirt: hand its `openHost` to `main`'))
}

function finish({ output, status }: RunResult): void {
  process.exitCode = status
  // Whoever reads the output may have gone (EPIPE); the status still counts.
  process.stdout.on('error', () => undefined)
  // Nothing is waited for once the output is out: not what was left hanging after a timeout, nor the taking down of what is whole.
  process.stdout.write(output, () => process.exit())
}
