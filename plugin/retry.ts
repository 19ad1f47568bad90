import type { HandlerContext } from './handler.js'

const firstPauseMs = 250
const longestPauseMs = 2000
/** Of the time that is left, what one try may take: one that hangs leaves time for another. */
const tryShare = 0.6
/** With less time left nothing is begun. */
const shortestTryMs = 200

/** A failure that may pass: what {@link retry} tries again. */
export class PassingError extends Error {
  override readonly name = 'PassingError'
  /** How long the other side asks to be left alone. */
  readonly retryAfterMs: number | undefined

  constructor(message: string, { retryAfterMs, cause }: { retryAfterMs?: number | undefined; cause?: unknown } = {}) {
    super(message, { cause })
    this.retryAfterMs = retryAfterMs
  }
}

/**
 * Calls `attempt` until it succeeds, fails for good (any error but a {@link PassingError}), or the run's time is nearly over. Pauses double from a quarter
 * of a second to two, each shortened at random by up to half; one that the other side asks for is kept. A try may take 60 % of the time that is left; `timeoutMs`
 * says how much that is. The last failure is thrown, with how often it was tried.
 */
export async function retry<T>(
  context: Pick<HandlerContext, 'signal' | 'timeLeftMs' | 'random'>,
  attempt: (timeoutMs: number) => Promise<T>,
): Promise<T> {
  const startMs = context.timeLeftMs()
  for (let tries = 1; ; tries++) {
    try {
      return await attempt(Math.max(shortestTryMs, tryShare * context.timeLeftMs()))
    } catch (error) {
      if (!(error instanceof PassingError)) throw error
      const backOffMs = Math.min(longestPauseMs, firstPauseMs * 2 ** (tries - 1)) * (1 - context.random() / 2)
      const pauseMs = error.retryAfterMs ?? backOffMs
      if (context.timeLeftMs() - pauseMs < 2 * shortestTryMs || context.signal.aborted) {
        throw new Error(`${error.message}${triesText(tries, startMs - context.timeLeftMs())}`, { cause: error })
      }
      await pause(pauseMs, context.signal)
    }
  }
}

function triesText(tries: number, spentMs: number): string {
  return tries === 1 ? '' : ` (${tries} tries in ${(spentMs / 1000).toFixed(1)} s)`
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', onAbort)
      resolve()
    }, ms)
    const onAbort = () => {
      clearTimeout(timer)
      reject(signal.reason)
    }
    signal.addEventListener('abort', onAbort, { once: true })
  })
}
