/** Collects messages and waits for a number of them. */
export class Inbox {
  readonly messages: Buffer[] = []
  #waiting: (() => void)[] = []

  readonly take = (message: Buffer): void => {
    this.messages.push(message)
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  get texts(): string[] {
    return this.messages.map(String)
  }

  async until(count: number): Promise<string[]> {
    while (this.messages.length < count) await new Promise<void>(resolve => this.#waiting.push(resolve))
    return this.texts
  }
}
