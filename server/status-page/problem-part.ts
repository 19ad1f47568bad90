import type { Actions } from './actions.js'
import { button, element, type Part, PartList, setText } from './elements.js'
import {
  clientAddress,
  counted,
  duration,
  nowSeconds,
  silencedThing,
  silenceTerms,
  statusClasses,
  statusNames,
  timeText,
} from './format.js'
import { OutputPart } from './output-part.js'
import type { Silence } from './shapes.js'
import type { Problem } from './site.js'
import { Sparkline } from './sparkline.js'

/** One event: what, where, since when, how often, what the check printed, and what can be done. */
export class ProblemPart implements Part<Problem> {
  readonly element: HTMLElement
  readonly #badge = element('span', { class: 'badge' })
  readonly #host = element('span', { class: 'host' })
  readonly #flapping = element('span', { class: 'flapping', title: 'Its status changes again and again' }, 'flapping')
  readonly #since = element('span', { class: 'since' })
  readonly #sparkline = new Sparkline()
  readonly #output = new OutputPart()
  readonly #silences: PartList<Silence>

  constructor({ event: { client, check } }: Problem, actions: Actions) {
    const silences = element('ul', { class: 'silences' })
    this.#silences = new PartList(
      silences,
      ({ id }) => id,
      silence => new SilencePart(silence, actions),
    )
    const subject = { client, check }
    const named = `${check} on ${client}`
    this.element = element(
      'li',
      { class: 'problem' },
      this.#badge,
      element(
        'div',
        { class: 'what' },
        element('a', { class: 'client', href: clientAddress(client) }, client),
        ' ',
        this.#host,
        ' ',
        element('span', { class: 'check' }, check),
        ' ',
        this.#flapping,
      ),
      this.#since,
      this.#sparkline.element,
      element(
        'div',
        { class: 'actions' },
        button('Silence', () => actions.silence(subject), {
          'aria-label': `Silence ${named}`,
          'aria-haspopup': 'dialog',
        }),
        button('Resolve', () => actions.resolve(subject), { 'aria-label': `Resolve ${named}` }),
      ),
      this.#output.element,
      silences,
    )
  }

  update({ event, silences }: Problem): void {
    const { status, host, client, since, occurrences, flapping, history, output } = event
    this.element.className = `problem ${statusClasses[status]}`
    setText(this.#badge, statusNames[status])
    setText(this.#host, host === undefined || host === client ? '' : `on ${host}`)
    this.#flapping.hidden = !flapping
    setText(this.#since, `${since === undefined ? '' : `for ${duration(nowSeconds() - since)} · `}×${occurrences}`)
    const times = counted(occurrences, 'time')
    this.#since.title = since === undefined ? times : `since ${timeText(since)}, ${times} in a row`
    this.#sparkline.update(history)
    this.#output.update(output)
    this.#silences.show(silences)
  }
}

/** One entry of the silenced registry, with what ends it. */
export class SilencePart implements Part<Silence> {
  readonly element: HTMLElement
  readonly #terms = element('span', { class: 'terms' })

  constructor({ id }: Silence, actions: Actions) {
    const thing = silencedThing(id)
    this.element = element(
      'li',
      {},
      element('span', { class: 'thing' }, thing),
      ' ',
      this.#terms,
      ' ',
      button('Unsilence', () => actions.unsilence(id), { 'aria-label': `Unsilence ${thing}` }),
    )
  }

  update(silence: Silence): void {
    setText(this.#terms, silenceTerms(silence, nowSeconds()))
  }
}
