import { statusClasses, statusNames } from './format.js'
import type { Status } from './shapes.js'

const SVG = 'http://www.w3.org/2000/svg'
const BAR_WIDTH = 4
const BAR_STEP = 6
const HEIGHT = 18
/** A history is this long at most; newer statuses are on the right. */
const BARS = 21
/** Worse is higher, so that colours are not needed to read it. */
const heights: Record<Status, number> = { 0: 5, 1: 11, 2: 18, 3: 14 }

/** A check's last statuses as bars; `update` draws anew only what is new. */
export class Sparkline {
  readonly element: SVGSVGElement
  #shown = ''

  constructor() {
    this.element = document.createElementNS(SVG, 'svg')
    this.element.setAttribute('class', 'sparkline')
    this.element.setAttribute('viewBox', `0 0 ${BARS * BAR_STEP} ${HEIGHT}`)
    this.element.setAttribute('role', 'img')
  }

  update(history: readonly Status[]): void {
    const text = history.join('')
    if (text === this.#shown) return
    this.#shown = text
    const first = BARS - history.length
    const names = history.map(status => statusNames[status]).join(', ')
    const title = document.createElementNS(SVG, 'title')
    title.textContent = `Last statuses, newest last: ${names}`
    this.element.setAttribute('aria-label', title.textContent)
    this.element.replaceChildren(title, ...history.map((status, index) => bar(status, first + index)))
  }
}

function bar(status: Status, place: number): SVGRectElement {
  const rect = document.createElementNS(SVG, 'rect')
  const height = heights[status]
  const attributes = { x: place * BAR_STEP, y: HEIGHT - height, width: BAR_WIDTH, height, rx: 1 }
  for (const [name, value] of Object.entries(attributes)) rect.setAttribute(name, String(value))
  rect.setAttribute('class', statusClasses[status])
  return rect
}
