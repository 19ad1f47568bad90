import type { Subject } from './actions.js'
import type { NewSilence } from './api.js'
import { found, setText } from './elements.js'

/** Whose name stands beside a silence that was made here. */
const CREATOR = 'status page'

/** What a silence may be about. */
const scopes = {
  'check-on-client': ({ client, check }: Subject) => ({
    text: `${check} on ${client}`,
    silence: { subscription: `client:${client}`, check },
  }),
  client: ({ client }: Subject) => ({ text: `everything on ${client}`, silence: { subscription: `client:${client}` } }),
  check: ({ check }: Subject) => ({ text: `${check} everywhere`, silence: { check } }),
}

/** Asks what exactly is to be silenced, for how long and why. */
export class SilenceDialog {
  readonly #dialog = found('#silence', HTMLDialogElement)
  readonly #form = found('form', HTMLFormElement, this.#dialog)
  readonly #error = found('.error', HTMLElement, this.#dialog)
  #subject: Subject = { client: '' }

  /** `silence` rejects with an Error that can be shown. */
  constructor(silence: (silence: NewSilence, what: string) => Promise<void>) {
    found('button[value=cancel]', HTMLButtonElement, this.#form).addEventListener('click', () => this.#dialog.close())
    this.#form.addEventListener('submit', async event => {
      event.preventDefault()
      const submit = found('button[type=submit]', HTMLButtonElement, this.#form)
      submit.disabled = true
      try {
        const { what, entry } = this.#entered()
        await silence(entry, what)
        this.#dialog.close()
      } catch (error) {
        this.#error.hidden = false
        setText(this.#error, `Not silenced: ${error instanceof Error ? error.message : String(error)}`)
      }
      submit.disabled = false
    })
  }

  open(subject: Subject): void {
    this.#subject = subject
    this.#form.reset()
    this.#error.hidden = true
    for (const [name, describe] of Object.entries(scopes)) {
      const label = found(`[data-scope=${name}]`, HTMLLabelElement, this.#form)
      label.hidden = subject.check === undefined && name !== 'client'
      setText(found('span', HTMLSpanElement, label), describe(subject).text)
    }
    const first = subject.check === undefined ? 'client' : 'check-on-client'
    found(`[name=scope][value=${first}]`, HTMLInputElement, this.#form).checked = true
    this.#dialog.showModal()
  }

  #entered(): { what: string; entry: NewSilence } {
    const data = new FormData(this.#form)
    const scope = data.get('scope')
    const until = data.get('until')
    const reason = String(data.get('reason') ?? '').trim()
    const describe = scope === 'client' || scope === 'check' ? scopes[scope] : scopes['check-on-client']
    const { text, silence } = describe(this.#subject)
    const entry = {
      ...silence,
      ...(until === 'resolved' ? { expire_on_resolve: true as const } : { expire: Number(until) }),
      ...(reason !== '' && { reason }),
      creator: CREATOR,
    }
    return { what: text, entry }
  }
}
