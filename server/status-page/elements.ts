// The little of the document that the page makes itself. Texts become text nodes: what clients send is never read as HTML.

/** An element with attributes and content. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string> = {},
  ...content: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  made.append(...content)
  return made
}

/** An element of the page as it was loaded. Throws when the page has no such element. */
export function found<T extends Element>(selector: string, type: new () => T, inside: ParentNode = document): T {
  const one = inside.querySelector(selector)
  if (!(one instanceof type)) throw new Error(`the page has no ${selector}`)
  return one
}

/** A button that does something; asked again while that goes on, it does nothing. */
export function button(text: string, action: () => void | Promise<void>, attributes: Record<string, string> = {}) {
  const made = element('button', { type: 'button', ...attributes }, text)
  let busy = false
  made.addEventListener('click', async () => {
    if (busy) return
    busy = true
    made.setAttribute('aria-busy', 'true')
    await action()
    made.removeAttribute('aria-busy')
    busy = false
  })
  return made
}

/** Changes a text only when it is another: what is selected in it stays so. */
export function setText(node: Element, text: string): void {
  if (node.textContent !== text) node.textContent = text
}

/** Something that stays on the page while what it shows changes. */
export interface Part<T> {
  readonly element: HTMLElement
  update(item: T): void
}

/** The parts of a list, kept by a key: what somebody has opened, selected or focused outlives new data. */
export class PartList<T> {
  readonly #parent: Element
  readonly #create: (item: T) => Part<T>
  readonly #key: (item: T) => string
  #parts = new Map<string, Part<T>>()

  constructor(parent: Element, key: (item: T) => string, create: (item: T) => Part<T>) {
    this.#parent = parent
    this.#key = key
    this.#create = create
  }

  show(items: readonly T[]): void {
    const focused = document.activeElement
    const parts = new Map<string, Part<T>>()
    for (const item of items) {
      const key = this.#key(item)
      const part = this.#parts.get(key) ?? this.#create(item)
      part.update(item)
      parts.set(key, part)
    }
    for (const [key, { element }] of this.#parts) if (!parts.has(key)) element.remove()
    let next = this.#parent.firstElementChild
    for (const { element } of parts.values()) {
      if (element === next) next = next.nextElementSibling
      else this.#parent.insertBefore(element, next)
    }
    this.#parts = parts
    if (focused instanceof HTMLElement && focused !== document.activeElement && focused.isConnected) focused.focus()
  }
}

/** A list that shows some of its items, and more of them when asked to. */
export class LongList<T> {
  readonly #parts: PartList<T>
  readonly #more: HTMLButtonElement
  readonly #step: number
  #limit: number
  #items: readonly T[] = []

  constructor(parts: PartList<T>, more: HTMLButtonElement, step: number) {
    this.#parts = parts
    this.#more = more
    this.#step = step
    this.#limit = step
    more.addEventListener('click', () => {
      this.#limit += step
      this.show(this.#items)
    })
  }

  /** `wanted`: an item that is shown whatever its place. */
  show(items: readonly T[], wanted?: T): void {
    this.#items = items
    const shown = items.slice(0, this.#limit)
    if (wanted !== undefined && !shown.includes(wanted)) shown.push(wanted)
    this.#parts.show(shown)
    const left = items.length - shown.length
    this.#more.hidden = left <= 0
    setText(this.#more, `Show ${Math.min(left, this.#step)} more of ${left}`)
  }
}
