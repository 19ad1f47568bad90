type Level = 'debug' | 'info' | 'warn' | 'error'
type Line = { level: Level; message: string; [key: string]: unknown }

/** A log that a test reads. */
export class RecordingLog {
  readonly lines: Line[] = []
  #waiting: (() => void)[] = []

  debug = this.#writer('debug')
  info = this.#writer('info')
  warn = this.#writer('warn')
  error = this.#writer('error')

  /** The lines of one level, without it. */
  at(level: Level): { message: string }[] {
    return this.lines.filter(line => line.level === level).map(({ level: _, ...line }) => line)
  }

  /** Waits until there are `count` lines of the level; returns the last of these. */
  async next(level: Level, count: number): Promise<{ message: string } | undefined> {
    while (this.at(level).length < count) await new Promise<void>(resolve => this.#waiting.push(resolve))
    return this.at(level)[count - 1]
  }

  #writer(level: Level) {
    return (message: string, data: Record<string, unknown> = {}) => {
      this.lines.push({ ...data, level, message })
      for (const resolve of this.#waiting.splice(0)) resolve()
    }
  }
}
