import { createHash } from 'node:crypto'
import type { SensuEvent } from '../plugin/event.js'
import { dashboardLink, factsOf, fillTokens, headline, outputText } from '../plugin/event-text.js'
import { type Action, defineHandler } from '../plugin/handler.js'
import { deliver, httpSettings, previewOf } from '../plugin/http-delivery.js'
import { oneLineRule } from '../plugin/setting-rules.js'

/** Those of PagerDuty's Events API v2. */
const pagerDutySeverities = ['critical', 'error', 'warning', 'info'] as const
const defaultSeverities: Readonly<Record<string, string>> = {
  ok: 'info',
  warning: 'warning',
  critical: 'critical',
  unknown: 'error',
}
const longestKey = 255

export default defineHandler({
  name: 'handler-pagerduty',
  summary: "Triggers and resolves alerts through PagerDuty's Events API v2.",
  description: `A problem triggers an alert, its end resolves it. Both have the same \`dedup_key\`, by default \`CLIENT/CHECK\`, so that PagerDuty has one alert for each check of each client, whichever server sends it and however often; each further event of a problem updates it with
the severity it has now. A key of more than 255 characters is cut and ends in a digest of all of it.

The alert has the client as its source, the host that ran the check as its group, the check as its component and class, and in \`custom_details\` all that is known: state and since when, the last OK, history, output. With \`dashboard_url\` it links there.

Use \`"handle_flapping": true\` in the handler's definition if you want to hear of checks that flap: the alert is triggered with the state they have.`,
  settings: {
    routing_key: {
      type: 'secret',
      required: true,
      rule: oneLineRule,
      summary: 'The integration key of a service, or of an event orchestration.',
    },
    url: {
      type: 'text',
      protocols: ['https', 'http'],
      default: 'https://events.pagerduty.com/v2/enqueue',
      summary: 'The API; accounts of the EU region have `https://events.eu.pagerduty.com/v2/enqueue`.',
    },
    dedup_key: {
      type: 'text',
      default: ':::client.name:::/:::check.name:::',
      summary: 'What tells one alert from another, with tokens.',
    },
    severities: {
      type: 'texts by name',
      nameRule: state => oneOf(Object.keys(defaultSeverities), state),
      rule: severity => oneOf(pagerDutySeverities, severity),
      summary:
        'Severity (`critical`, `error`, `warning` or `info`) by state; default: `{"warning": "warning", "critical": "critical", "unknown": "error"}`.',
    },
    ...httpSettings,
  },
  sample: { routing_key_file: '/etc/sensu/pagerduty.key' },
  handle(event, settings, context): Action {
    const { routing_key: routingKey, url, dedup_key: template, severities, dashboard_url: dashboardUrl } = settings
    const key = dedupKey(fillTokens(template, event, value => value))
    const isEnd = event.action === 'resolve'
    const alert = {
      event_action: isEnd ? 'resolve' : 'trigger',
      dedup_key: key,
      ...(isEnd ? {} : alertOf(event, { ...defaultSeverities, ...severities }, dashboardUrl)),
    }
    const headers = { 'Content-Type': 'application/json', 'User-Agent': 'sensu-kvm' }
    const delivery = (routing_key: string) => ({ url, headers, body: JSON.stringify({ routing_key, ...alert }) })
    return {
      preview: previewOf(delivery(String(routingKey)), [], false),
      async run() {
        await deliver(delivery(routingKey.reveal()), settings, context)
        return `${isEnd ? 'resolved' : 'triggered'} ${key} at ${new URL(url).origin}`
      },
    }
  },
})

function oneOf(known: readonly string[], word: string): string | undefined {
  return known.includes(word) ? undefined : `must be one of: ${known.join(', ')}`
}

function dedupKey(key: string): string {
  if (key.length <= longestKey) return key
  return `${key.slice(0, 190)}-${createHash('sha256').update(key).digest('hex')}`
}

function alertOf(event: SensuEvent, severities: Readonly<Record<string, string>>, dashboardUrl: string | undefined) {
  const link = dashboardLink(event, dashboardUrl)
  const { executed, timestamp, client, origin, check, status } = event
  const seconds = executed ?? timestamp
  return {
    payload: {
      summary: headline(event),
      source: client,
      severity: severities[status.toLowerCase()] ?? 'error',
      ...(seconds === undefined ? {} : { timestamp: new Date(seconds * 1000).toISOString() }),
      component: check,
      group: origin ?? client,
      class: check,
      custom_details: {
        ...Object.fromEntries(
          factsOf(event, undefined).map(([label, value]) => [label.toLowerCase().replace(/ /g, '_'), value]),
        ),
        output: outputText(event),
      },
    },
    ...(link === undefined ? {} : { links: [{ href: link, text: 'Dashboard' }] }),
    client: 'sensu-kvm',
    ...(link === undefined ? {} : { client_url: link }),
  }
}
