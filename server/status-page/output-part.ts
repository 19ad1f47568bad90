import { element, setText } from './elements.js'
import { firstLine } from './format.js'

/** Longer outputs are cut; the API has them whole. */
const MAXIMUM_CHARACTERS = 20_000

/** What a check printed: its first line, and all of it when opened. */
export class OutputPart {
  readonly element: HTMLDetailsElement
  readonly #first = element('summary')
  readonly #rest = element('pre', { tabindex: '0' })
  #output = ''

  constructor() {
    this.element = element('details', { class: 'output' }, this.#first, this.#rest)
    this.element.addEventListener('toggle', () => this.#showRest())
  }

  update(output: string): void {
    this.#output = output
    setText(this.#first, firstLine(output))
    this.#showRest()
  }

  /** What the first line does not say. Only when somebody looks: outputs are long. */
  #showRest(): void {
    if (!this.element.open) return
    const first = firstLine(this.#output)
    const text = this.#output.trim()
    const rest = `${text}\n`.startsWith(`${first}\n`) ? text.slice(first.length).trim() : text
    const left = rest.length - MAXIMUM_CHARACTERS
    const more = left > 0 ? `\n… and ${left} characters more, see the API` : ''
    setText(this.#rest, rest.slice(0, MAXIMUM_CHARACTERS) + more)
    this.#rest.hidden = rest === ''
  }
}
