import { element, setText } from './elements.js'
import { clientAddress, counted, statusClasses, statusNames } from './format.js'
import type { ClientState } from './site.js'

/** A client by its name and state, which opens and closes the look at it. */
export class ClientLink {
  readonly element = element('a', { class: 'client' })
  readonly #name = element('span', { class: 'name' })

  constructor() {
    this.element.append(element('span', { class: 'dot', 'aria-hidden': 'true' }), this.#name)
  }

  update({ name, status, problems, hasSilenced }: ClientState, isOpen: boolean): void {
    const silenced = hasSilenced ? ' silenced' : ''
    this.element.className = `client ${statusClasses[status]}${silenced}`
    // '#client=' is no client: it closes
    this.element.setAttribute('href', isOpen ? '#client=' : clientAddress(name))
    if (isOpen) this.element.setAttribute('aria-current', 'true')
    else this.element.removeAttribute('aria-current')
    setText(this.#name, name)
    const state = problems === 0 ? statusNames[0] : `${statusNames[status]}, ${counted(problems, 'problem')}`
    const title = `${name}: ${state}${hasSilenced ? ', all or some of it silenced' : ''}`
    this.element.title = title
    this.element.ariaLabel = title
  }
}
