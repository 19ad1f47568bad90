import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

/** A stand-in daemon. */
export interface Replay {
  readonly socketPath: string
  /** Lets the guests' counters grow. */
  nextRound(): Promise<void>
  stop(): Promise<void>
}

/** Starts a stand-in daemon with so many busy guests, as a process of its own: its CPU time is not ours. */
export async function startReplay(guests: number): Promise<Replay> {
  const child = fork(fileURLToPath(new URL('replay-daemon.js', import.meta.url)), [String(guests)])
  const exited = once(child, 'exit')
  const ended = exited.then(([status]) => Promise.reject(new Error(`the stand-in daemon ended with ${status}`)))
  ended.catch(() => undefined)
  const [socketPath] = await Promise.race([once(child, 'message'), ended])
  return {
    socketPath: String(socketPath),
    nextRound: async () => {
      child.send('next')
      await once(child, 'message')
    },
    stop: async () => {
      child.disconnect()
      await exited
    },
  }
}
