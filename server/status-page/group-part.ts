import { ClientLink } from './client-link.js'
import type { ClientPanel } from './client-panel.js'
import { element, LongList, type Part, PartList, setText } from './elements.js'
import { counted, duration, nowSeconds } from './format.js'
import { type ClientState, type Group, WITHOUT_HOST } from './site.js'

/** Guests of a host that are shown at once. */
const GUESTS_SHOWN = 60

/** A group on the page, with the panel when it is about a client of this group. */
export interface ShownGroup {
  group: Group
  panel: ClientPanel | undefined
}

interface ShownGuest {
  guest: ClientState
  isOpen: boolean
}

/** A host with its guests. */
export class GroupPart implements Part<ShownGroup> {
  readonly element: HTMLElement
  readonly #host = new ClientLink()
  readonly #about = element('span', { class: 'about' })
  readonly #guestList: HTMLUListElement
  readonly #guests: LongList<ShownGuest>

  constructor({ group: { host } }: ShownGroup) {
    const named = host.name !== WITHOUT_HOST
    const guestList = element('ul', {
      class: 'guests',
      'aria-label': named ? `Guests of ${host.name}` : 'Clients whose host is not known',
    })
    const more = element('button', { type: 'button', class: 'more' })
    this.#guestList = guestList
    this.#guests = new LongList(new PartList(guestList, ({ guest }) => guest.name, guestPart), more, GUESTS_SHOWN)
    const head = element('div', { class: 'head' })
    head.append(named ? this.#host.element : element('span', { class: 'client' }, 'Host not known'), ' ', this.#about)
    this.element = element('li', { class: 'group' }, head, guestList, more)
  }

  update({ group: { host, guests }, panel }: ShownGroup): void {
    this.#host.update(host, host.name === panel?.client)
    setText(this.#about, about(host, guests))
    const shown = guests.map(guest => ({ guest, isOpen: guest.name === panel?.client }))
    this.#guestList.hidden = shown.length === 0
    this.#guests.show(
      shown,
      shown.find(({ isOpen }) => isOpen),
    )
    if (panel !== undefined && panel.element.parentElement !== this.element) this.element.append(panel.element)
  }
}

function guestPart(): Part<ShownGuest> {
  const link = new ClientLink()
  return {
    element: element('li', {}, link.element),
    update: ({ guest, isOpen }) => link.update(guest, isOpen),
  }
}

function about({ name, client }: ClientState, guests: readonly ClientState[]): string {
  const wrong = guests.filter(({ problems }) => problems > 0).length
  const count = counted(guests.length, name === WITHOUT_HOST ? 'client' : 'guest')
  return [
    ...(guests.length > 0 ? [`${count}${wrong > 0 ? `, ${wrong} with problems` : ''}`] : []),
    // a client that the server made itself, for a result before the first keepalive, has no address yet
    ...(client === undefined || client.isProxy || client.address === 'unknown' ? [] : [client.address]),
    ...(client?.keepalive === undefined ? [] : [`keepalive ${duration(nowSeconds() - client.keepalive)} ago`]),
  ].join(' · ')
}
