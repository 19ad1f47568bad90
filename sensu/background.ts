import { Spawner } from './spawn.js'

/** Tells the second process that it is the one in the background. */
const MARK = 'SENSU_KVM_IN_BACKGROUND'

/** Whether this process was started by `startInBackground`. Forgets it, so that commands do not inherit the mark. */
export function isInBackground(environment: NodeJS.ProcessEnv): boolean {
  const marked = environment[MARK] !== undefined
  delete environment[MARK]
  return marked
}

/**
 * Starts this program once more, in a session of its own, with its input and output on /dev/null. A Node process cannot
 * fork itself as Sensu does; the shell starts the second one and leaves it. Rejects when that fails.
 */
export async function startInBackground(): Promise<void> {
  const words = [process.execPath, ...process.execArgv, ...process.argv.slice(1)].map(quoted).join(' ')
  const spawner = new Spawner({ limit: 1, env: { ...process.env, [MARK]: '1' } })
  const { output, status } = await spawner.run({ command: `setsid -f ${words} </dev/null >/dev/null 2>&1` })
  spawner.close()
  if (status !== 0) throw new Error(`cannot start in the background: ${output.toString().trim() || `status ${status}`}`)
}

/** What becomes of a process that runs in the background: a terminal that hangs up does not end it, and it holds no directory busy. */
export function settleInBackground(): void {
  process.on('SIGHUP', () => {})
  process.chdir('/')
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`
}
