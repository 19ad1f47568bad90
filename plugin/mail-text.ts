import { createHash } from 'node:crypto'
import type { SensuEvent } from './event.js'
import { dashboardLink, factsOf, headline, outputText } from './event-text.js'

/** What a mail says, and how it is threaded. */
export interface MailText {
  readonly subject: string
  readonly text: string
  readonly html: string
  /** The same for the same event, so that a mail that arrives twice is recognised; with angle brackets. */
  readonly messageId: string
  /** The same for all events of one problem, its end included: what mail programs put the thread together by. */
  readonly references: string
}

/** The mail about an event; `domain` is that of the message identifiers. */
export function mailText(event: SensuEvent, domain: string, dashboardUrl: string | undefined): MailText {
  const subject = headline(event)
  const link = dashboardLink(event, dashboardUrl)
  const facts = factsOf(event, undefined)
  const output = outputText(event, 20_000)
  const width = Math.max(...facts.map(([label]) => label.length)) + 2
  const lines = facts.map(([label, value]) => `${`${label}:`.padEnd(width)}${value}`)
  return {
    subject,
    text: [subject, '', ...lines, '', output, ...(link === undefined ? [] : ['', link]), ''].join('\n'),
    html: htmlText(subject, facts, output, link),
    ...threadOf(event, domain),
  }
}

/** Identifiers from the event's own, which is the same from a problem's first event to its end, on all servers. */
function threadOf(event: SensuEvent, domain: string): { messageId: string; references: string } {
  const { id, client, check, lastStateChange, action, status, occurrences, timestamp } = event
  const problem = id === '' ? digest([client, check, event.lastOk ?? lastStateChange]) : id.replace(/[^\w.-]/g, '_')
  const one = digest([problem, action, status, occurrences, timestamp])
  return { messageId: `<${problem}.${one}@${domain}>`, references: `<${problem}@${domain}>` }
}

function digest(parts: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 24)
}

function htmlText(
  subject: string,
  facts: readonly (readonly [string, string])[],
  output: string,
  link: string | undefined,
): string {
  const rows = facts.map(
    ([label, value]) => `<tr><th align="left">${escapeHtml(label)}</th><td>${escapeHtml(value)}</td></tr>`,
  )
  return [
    '<!doctype html><html><body>',
    `<p><strong>${escapeHtml(subject)}</strong></p>`,
    `<table cellpadding="4">${rows.join('')}</table>`,
    `<pre>${escapeHtml(output)}</pre>`,
    ...(link === undefined ? [] : [`<p><a href="${escapeHtml(link)}">Dashboard</a></p>`]),
    '</body></html>',
  ].join('\n')
}

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, character => entities[character] ?? '')
}
