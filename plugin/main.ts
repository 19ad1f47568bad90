import { hostname } from 'node:os'
import { sendResults } from './agent-socket.js'
import { FileState } from './file-state.js'
import { type CheckProgram, type Environment, failure, type RunResult, runCheck } from './program.js'

/** How long an open handle may keep the process alive after its output is written, milliseconds. */
const lingerMs = 500

/** Runs a check as this process: writes its output once and leaves its status as the exit code. */
export async function main<Host>(program: CheckProgram<Host>, openHost: Environment<Host>['openHost']): Promise<void> {
  let finished = false
  const finishOnce = (result: RunResult) => {
    if (!finished) finish(result)
    finished = true
  }
  process.on('uncaughtException', error => finishOnce(failure(program.check.name, error)))
  const result = await runCheck(program, process.argv.slice(2), {
    openHost,
    state: new FileState(process.env),
    now: Date.now,
    hostname: hostname(),
    variables: process.env,
    deliver: sendResults,
  })
  finishOnce(result)
}

function finish({ output, status }: RunResult): void {
  process.exitCode = status
  // Whoever reads the output may have gone (EPIPE); the status still counts.
  process.stdout.on('error', () => undefined)
  process.stdout.write(output, () => {
    // A process that has nothing open ends by itself at once; what was left hanging after a timeout must not hold it.
    setTimeout(() => process.exit(), lingerMs).unref()
  })
}
