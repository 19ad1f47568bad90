import type { Actions } from './actions.js'
import { Api, MAXIMUM_CLIENTS, MAXIMUM_EVENTS } from './api.js'
import { ClientPanel } from './client-panel.js'
import { element, found, LongList, PartList, setText } from './elements.js'
import { clockText, counted, nowSeconds, silencedThing, statusClasses, statusNames } from './format.js'
import { GroupPart, type ShownGroup } from './group-part.js'
import { type Connection, Poller } from './poll.js'
import { ProblemPart, SilencePart } from './problem-part.js'
import type { Silence } from './shapes.js'
import { SilenceDialog } from './silence-dialog.js'
import {
  filterGroups,
  filterProblems,
  type Group,
  groupsOf,
  matches,
  type Problem,
  problemsOf,
  type Site,
} from './site.js'

/** What is shown of each list before somebody wants more. */
const PROBLEMS_SHOWN = 100
const SILENCES_SHOWN = 20
const GROUPS_SHOWN = 50
/** Which clients there are changes rarely, and the list is long. */
const CLIENTS_INTERVAL_MS = 60_000
const NOTICE_MS = 8000

/** The page: loads what is shown, shows it, does what is asked for. */
export class StatusPage {
  readonly #api = new Api()
  readonly #poller = new Poller(
    () => this.#load(),
    connection => this.#showConnection(connection),
  )
  readonly #dialog = new SilenceDialog(async (silence, what) => {
    await this.#api.silence(silence)
    this.#done(`Silenced: ${what}.`)
  })
  readonly #actions: Actions = {
    silence: subject => this.#dialog.open(subject),
    unsilence: id => this.#do(`No longer silenced: ${silencedThing(id)}.`, () => this.#api.unsilence(id)),
    resolve: ({ client, check }) =>
      this.#do(`To be resolved: ${check} on ${client}.`, () => this.#api.resolve(client, check)),
  }
  readonly #panel = new ClientPanel(this.#api, this.#actions)
  readonly #filter = found('#filter', HTMLInputElement)
  readonly #problems = this.#problemList('#problems', '#more-problems')
  readonly #silencedProblems = this.#problemList('#silenced-problems', '#more-silenced')
  readonly #silences = new LongList<Silence>(
    new PartList(
      found('#silences', HTMLElement),
      ({ id }) => id,
      silence => new SilencePart(silence, this.#actions),
    ),
    found('#more-silences', HTMLButtonElement),
    SILENCES_SHOWN,
  )
  readonly #groups = new LongList<ShownGroup>(
    new PartList(
      found('#hosts', HTMLElement),
      ({ group }) => group.host.name,
      group => new GroupPart(group),
    ),
    found('#more-hosts', HTMLButtonElement),
    GROUPS_SHOWN,
  )
  #site: Site = { events: [], silences: [], clients: [] }
  #troubles: string[] = []
  #isLoaded = false
  #eventCount = 0
  #clientCount = 0
  #clientsLoadedAt = 0
  #noticeTimer: number | undefined

  start(): void {
    this.#filter.addEventListener('input', () => this.#render())
    found('#refresh', HTMLButtonElement).addEventListener('click', () => void this.#poller.now())
    addEventListener('hashchange', () => this.#turnToClient())
    addEventListener('keydown', event => this.#shortcut(event))
    this.#poller.watchVisibility()
    this.#panel.open(clientInAddress())
    void this.#poller.now()
  }

  async #load(): Promise<void> {
    const [troubles, { events, total }, silences] = await Promise.all([
      this.#api.troubles(),
      this.#api.events(),
      this.#api.silences(),
    ])
    this.#eventCount = total
    this.#troubles = troubles
    this.#site = { ...this.#site, events, silences }
    if (Date.now() - this.#clientsLoadedAt >= CLIENTS_INTERVAL_MS) {
      if (!this.#isLoaded) this.#render() // what is wrong does not wait for the clients
      await this.#loadClients()
    }
    const isFirst = !this.#isLoaded
    this.#isLoaded = true
    this.#render()
    await this.#panel.refresh()
    if (isFirst) this.#panel.scrollIntoView()
  }

  async #loadClients(): Promise<void> {
    const { clients, total } = await this.#api.clients()
    this.#clientsLoadedAt = Date.now()
    this.#clientCount = total
    this.#site = { ...this.#site, clients }
  }

  #render(): void {
    const filter = this.#filter.value.trim()
    const problems = problemsOf(this.#site, nowSeconds())
    const wrong = problems.filter(({ silences }) => silences.length === 0)
    const silenced = problems.filter(({ silences }) => silences.length > 0)
    const groups = groupsOf(this.#site, problems, nowSeconds())
    this.#showTotals(wrong, silenced.length)
    this.#showTroubles()
    this.#problems.show(filterProblems(wrong, filter))
    this.#showNothing(wrong, filter)
    this.#showSilenced(silenced, filter)
    this.#showGroups(filterGroups(groups, filter))
  }

  #showTotals(wrong: readonly Problem[], silenced: number): void {
    const counts = ([2, 1, 3] as const).map(status => ({
      name: statusNames[status].toLowerCase(),
      look: statusClasses[status],
      count: wrong.filter(({ event }) => event.status === status).length,
    }))
    // a flapping event may have the status OK at the moment
    const ok = wrong.length - counts.reduce((sum, { count }) => sum + count, 0)
    const all = [
      ...counts,
      { name: 'flapping', look: 'ok', count: ok },
      { name: 'silenced', look: 'silenced', count: silenced },
    ]
    const shown = all.filter(({ count }) => count > 0)
    const items = shown.map(({ name, look, count }) =>
      element('li', { class: look }, element('strong', {}, String(count)), ` ${name}`),
    )
    if (this.#isLoaded) items.push(element('li', {}, counted(this.#clientCount, 'client')))
    found('#totals', HTMLElement).replaceChildren(...items)
    document.title = wrong.length > 0 ? `(${wrong.length}) sensu-kvm` : 'sensu-kvm'
  }

  #showTroubles(): void {
    const trouble = found('#trouble', HTMLElement)
    const troubles = [...this.#troubles, ...cut('events', MAXIMUM_EVENTS, this.#eventCount)]
    troubles.push(...cut('clients', MAXIMUM_CLIENTS, this.#clientCount))
    trouble.hidden = troubles.length === 0
    setText(trouble, troubles.join(' '))
  }

  #showNothing(wrong: readonly Problem[], filter: string): void {
    const nothing = found('#nothing', HTMLElement)
    nothing.hidden = !this.#isLoaded || filterProblems(wrong, filter).length > 0
    const isEmpty = this.#site.clients.length === 0
    const isBlind = this.#troubles.length > 0
    const healthy = isEmpty ? 'No client has sent anything yet.' : isBlind ? 'No event is known.' : 'Nothing is wrong.'
    nothing.className = wrong.length > 0 || isEmpty || isBlind ? 'nothing' : 'nothing well'
    setText(nothing, wrong.length > 0 ? `Nothing of ${counted(wrong.length, 'problem')} fits the filter.` : healthy)
  }

  /** Entries that silence a problem are shown with it; the others silence what may come. */
  #showSilenced(silenced: readonly Problem[], filter: string): void {
    const problems = filterProblems(silenced, filter)
    const used = new Set(silenced.flatMap(({ silences }) => silences.map(({ id }) => id)))
    const rest = this.#site.silences.filter(({ id, reason }) => !used.has(id) && matches(filter, [id, reason]))
    found('#silenced', HTMLElement).hidden = problems.length === 0 && rest.length === 0
    this.#silencedProblems.show(problems)
    this.#silences.show(rest)
  }

  #showGroups(groups: readonly Group[]): void {
    const { client } = this.#panel
    const open = groups.find(({ host, guests }) => host.name === client || guests.some(({ name }) => name === client))
    if (open === undefined) this.#panel.element.remove()
    const shown = groups.map(group => ({
      group,
      panel: group === open && client !== undefined ? this.#panel : undefined,
    }))
    this.#groups.show(
      shown,
      shown.find(({ panel }) => panel !== undefined),
    )
  }

  #showConnection(connection: Connection): void {
    const isLost = connection.kind === 'lost'
    const wasLost = document.body.classList.contains('lost')
    document.body.classList.toggle('lost', isLost)
    if (isLost !== wasLost) this.#notice(isLost ? `Not connected: ${connection.reason}.` : 'Connected again.')
    const text = isLost
      ? `not connected since ${clockText(connection.since)}: ${connection.reason}; next try at ${clockText(connection.retryAt)}`
      : `updated ${clockText(connection.at)}`
    setText(found('#connection', HTMLElement), text)
    if (isLost) {
      this.#render() // what is shown grows older
      document.title = 'not connected – sensu-kvm'
      this.#clientsLoadedAt = 0
    }
  }

  /** Follows the address: another client, or none. */
  #turnToClient(): void {
    const client = clientInAddress()
    this.#panel.open(client)
    this.#render()
    this.#panel.scrollIntoView()
  }

  #shortcut(event: KeyboardEvent): void {
    const { target, key } = event
    const isTyping = target instanceof HTMLInputElement && target.type !== 'radio'
    if (key === '/' && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault()
      this.#filter.focus()
    }
  }

  async #do(success: string, action: () => Promise<void>): Promise<void> {
    try {
      await action()
      this.#done(success)
    } catch (error) {
      this.#notice(`That failed: ${error instanceof Error ? error.message : String(error)}`)
    }
  }

  #done(what: string): void {
    this.#notice(what)
    this.#poller.soon()
  }

  #notice(text: string): void {
    const notice = found('#notice', HTMLElement)
    setText(notice, text)
    notice.hidden = false
    clearTimeout(this.#noticeTimer)
    this.#noticeTimer = setTimeout(() => {
      notice.hidden = true
    }, NOTICE_MS)
  }

  #problemList(list: string, more: string): LongList<Problem> {
    return new LongList(
      new PartList(
        found(list, HTMLElement),
        ({ event: { client, check } }) => `${client}/${check}`,
        problem => new ProblemPart(problem, this.#actions),
      ),
      found(more, HTMLButtonElement),
      PROBLEMS_SHOWN,
    )
  }
}

/** The client that the page's address names, see `clientAddress`. */
function clientInAddress(): string | undefined {
  return new URLSearchParams(location.hash.slice(1)).get('client') || undefined
}

/** Says that not all is shown. */
function cut(what: string, maximum: number, total: number): string[] {
  return total > maximum ? [`Only ${maximum} of ${total} ${what} are shown.`] : []
}
