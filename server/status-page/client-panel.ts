import type { Actions } from './actions.js'
import type { Api } from './api.js'
import { button, element, type Part, PartList, setText } from './elements.js'
import { duration, nowSeconds, statusClasses, statusNames, timeText } from './format.js'
import { OutputPart } from './output-part.js'
import type { Result } from './shapes.js'
import { byBadness } from './site.js'
import { Sparkline } from './sparkline.js'

/** All results of one client, loaded when somebody looks. */
export class ClientPanel {
  readonly element: HTMLElement
  /** Whose results they are; undefined while nobody looks. */
  client: string | undefined
  readonly #api: Api
  readonly #title = element('h3')
  readonly #message = element('p', { class: 'message', role: 'status' })
  readonly #results: PartList<Result>

  constructor(api: Api, actions: Actions) {
    this.#api = api
    const list = element('ul', { class: 'results' })
    this.#results = new PartList(
      list,
      ({ check }) => check,
      ({ check }) => new ResultPart(check, () => actions.silence({ client: this.client ?? '', check })),
    )
    const silence = button('Silence client', () => actions.silence({ client: this.client ?? '' }), {
      'aria-haspopup': 'dialog',
    })
    const close = element('a', { class: 'button', href: '#client=' }, 'Close')
    const head = element(
      'div',
      { class: 'panel-head' },
      this.#title,
      element('div', { class: 'actions' }, silence, close),
    )
    this.element = element(
      'section',
      { class: 'panel', 'aria-label': 'Results of a client' },
      head,
      this.#message,
      list,
    )
  }

  /** Turns to a client, or to none. */
  open(client: string | undefined): void {
    if (this.client === client) return
    this.client = client
    this.#results.show([])
    if (client === undefined) this.element.remove()
    else {
      setText(this.#title, client)
      setText(this.#message, 'loading …')
      void this.refresh()
    }
  }

  scrollIntoView(): void {
    this.element.scrollIntoView({ block: 'nearest' })
  }

  /** Loads the results; never rejects. */
  async refresh(): Promise<void> {
    const { client } = this
    if (client === undefined) return
    try {
      const results = await this.#api.results(client)
      if (client !== this.client) return
      results.sort((a, b) => byBadness(a.status, b.status) || (a.check < b.check ? -1 : 1))
      setText(this.#message, results.length === 0 ? 'No results.' : '')
      this.#results.show(results)
    } catch (error) {
      if (client === this.client) setText(this.#message, error instanceof Error ? error.message : String(error))
    }
  }
}

class ResultPart implements Part<Result> {
  readonly element: HTMLElement
  readonly #badge = element('span', { class: 'badge' })
  readonly #executed = element('span', { class: 'since' })
  readonly #sparkline = new Sparkline()
  readonly #output = new OutputPart()

  constructor(check: string, silence: () => void) {
    this.element = element(
      'li',
      {},
      this.#badge,
      element('div', { class: 'what' }, element('span', { class: 'check' }, check)),
      this.#executed,
      this.#sparkline.element,
      element(
        'div',
        { class: 'actions' },
        button('Silence', silence, { 'aria-label': `Silence ${check}`, 'aria-haspopup': 'dialog' }),
      ),
      this.#output.element,
    )
  }

  update({ status, executed, history, output }: Result): void {
    this.element.className = `result ${statusClasses[status]}`
    setText(this.#badge, statusNames[status])
    setText(this.#executed, executed === undefined ? '' : `${duration(nowSeconds() - executed)} ago`)
    this.#executed.title = executed === undefined ? '' : `executed ${timeText(executed)}`
    this.#sparkline.update(history)
    this.#output.update(output)
  }
}
