import type { SensuEvent } from './event.js'
import {
  dashboardLink,
  factsOf,
  headline,
  outputText,
  stateText,
  stateWord,
  subjectText,
  valueAt,
} from './event-text.js'
import { cut } from './text.js'

/** How a chat writes text that came from outside so that it is nothing but text. */
export type ChatFormat = 'slack' | 'mattermost'

const longestOutput = 2000
const colors = { OK: 'good', WARNING: 'warning', CRITICAL: 'danger', UNKNOWN: '#439fe0' } as const

/** What of a message is the site's choice. */
export interface ChatOptions {
  readonly channel: string | undefined
  readonly username: string | undefined
  /** Put in front of a new CRITICAL problem as it is. */
  readonly mention: string | undefined
  readonly dashboardUrl: string | undefined
}

/** A message for an incoming webhook of Slack, or of Mattermost, which takes the same. */
export function chatMessage(event: SensuEvent, format: ChatFormat, options: ChatOptions): object {
  const { channel, username, mention, dashboardUrl } = options
  const plain = escapes[format]
  const title = headline(event)
  const link = dashboardLink(event, dashboardUrl)
  const facts = factsOf(event, undefined).map(([label, value]) => ({
    title: label,
    value: plain(value),
    short: value.length < 40,
  }))
  const isLoud = mention !== undefined && event.action === 'create' && event.status === 'CRITICAL'
  return {
    ...(channel === undefined ? {} : { channel }),
    ...(username === undefined ? {} : { username }),
    text: `${isLoud ? `${mention} ` : ''}${plain(title)}`,
    attachments: [
      {
        color: event.action === 'resolve' ? colors.OK : colors[event.status],
        // What a notification shows: no markup there.
        fallback: format === 'slack' ? plain(title) : withoutMentions(title),
        ...(link === undefined ? {} : { title: 'Dashboard', title_link: link }),
        text: fenced(outputText(event, longestOutput), format),
        fields: facts,
        mrkdwn_in: ['text'],
      },
    ],
  }
}

const escapes: Readonly<Record<ChatFormat, (text: string) => string>> = {
  // Only these three have a meaning that reaches outside of the message: links and mentions are <…>.
  slack: text => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;'),
  mattermost: text => withoutMentions(text).replace(/[\\`*_~[\]()#<>|!]/g, '\\$&'),
}

/** Nobody is called by what a check printed: an invisible character stands behind each `@`. */
function withoutMentions(text: string): string {
  return text.replaceAll('@', '@\u200b')
}

/** Text as it is, in a block that it cannot end. */
function fenced(text: string, format: ChatFormat): string {
  if (text === '') return ''
  const harmless = text.replaceAll('```', "'''")
  return `\`\`\`\n${format === 'slack' ? escapes.slack(harmless) : withoutMentions(harmless)}\n\`\`\``
}

const longestValue = 4000
const mostValues = 10_000

/** For a template: each of its values is gone through for each event. */
export function templateRule(template: unknown): string | undefined {
  let left = mostValues
  const fits = (value: unknown): boolean =>
    left-- > 0 && (typeof value !== 'object' || value === null || Object.values(value).every(fits))
  return fits(template) ? undefined : `must not have more than ${mostValues} values`
}

/**
 * A site's own message: every text of the template with its tokens replaced by what the event has at that path, or by `headline`, `state`, `subject`, `since`,
 * `output` and `link`. A text that is one token and nothing else becomes the value itself, so that numbers stay numbers.
 */
export function fillTemplate(template: unknown, event: SensuEvent, dashboardUrl: string | undefined): unknown {
  const words = {
    headline: headline(event),
    state: stateWord(event),
    since: stateText(event),
    subject: subjectText(event),
    output: outputText(event, longestOutput),
    link: dashboardLink(event, dashboardUrl),
  }
  const lookUp = (path: string, instead: string | undefined): unknown =>
    valueAt(words, path) ?? valueAt(event.raw, path) ?? instead ?? ''
  const fill = (value: unknown): unknown => {
    if (typeof value === 'string') return fillText(value, lookUp)
    if (Array.isArray(value)) return value.map(fill)
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, fill(item)]))
  }
  return fill(template)
}

function fillText(text: string, lookUp: (path: string, instead: string | undefined) => unknown): unknown {
  const [, path, instead] = /^:::([\w.-]{1,200})(?:\|([^:]{0,200}))?:::$/.exec(text) ?? []
  if (path !== undefined) {
    const value = lookUp(path, instead)
    return typeof value === 'string' ? cut(value, longestValue) : value
  }
  return text.replace(/:::([\w.-]{1,200})(?:\|([^:]{0,200}))?:::/g, (_, path: string, instead?: string) => {
    const value = lookUp(path, instead)
    return cut(typeof value === 'string' ? value : JSON.stringify(value), longestValue)
  })
}
