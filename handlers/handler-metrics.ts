import type { SensuEvent } from '../plugin/event.js'
import { fillTokens } from '../plugin/event-text.js'
import { defineHandler } from '../plugin/handler.js'
import { httpSettings } from '../plugin/http-delivery.js'
import { headerValueRule, oneLineRule } from '../plugin/setting-rules.js'
import type { SettingTable, SettingValues } from '../plugin/settings-table.js'
import { printable } from '../plugin/text.js'
import type { Additions } from './metrics/lines.js'
import { detectFormat, type Origin, type OutputFormat, outputFormats, parseOutput } from './metrics/parse.js'
import {
  type Delivery,
  linesFor,
  placeOf,
  sendNumbers,
  storeNames,
  storeProtocols,
  type Target,
} from './metrics/stores.js'

const protocols = ['tcp', 'udp', 'http', 'https']

const settings = {
  store: { type: 'choice', choices: storeNames, required: true, summary: 'What takes the numbers.' },
  url: {
    type: 'text',
    protocols,
    required: true,
    summary:
      'Where it is: `tcp://graphite.example:2003` or `udp://…` for Graphite, `http://influx.example:8086` or `https://…` for InfluxDB (version 1 also `udp://…`), `tcp://…` or `http://opentsdb.example:4242` for OpenTSDB.',
  },
  output_format: {
    type: 'choice',
    choices: outputFormats,
    summary:
      "The format of the checks' output. Default: the check's attribute `output_format`, else told by the output itself.",
  },
  prefix: {
    type: 'text',
    summary: 'In front of paths, measurements and metric names, with tokens: `site.:::client.environment|none:::`.',
  },
  tags: {
    type: 'texts by name',
    summary: 'Added to every number, with tokens: `{ "client": ":::client.name:::" }`; in Graphite parts of the path.',
  },
  database: { type: 'text', summary: 'InfluxDB version 1: the database.' },
  retention_policy: { type: 'text', summary: "InfluxDB version 1: the retention policy. Default: the database's own." },
  user: { type: 'text', rule: oneLineRule, summary: 'User for HTTP, with `password`.' },
  password: { type: 'secret', rule: oneLineRule, summary: 'Password for HTTP.' },
  org: { type: 'text', summary: 'InfluxDB version 2: the organisation.' },
  bucket: { type: 'text', summary: 'InfluxDB version 2: the bucket.' },
  token: { type: 'secret', rule: headerValueRule, summary: 'InfluxDB version 2: the token.' },
  ...httpSettings,
} as const satisfies SettingTable
type Settings = SettingValues<typeof settings>

export default defineHandler({
  name: 'handler-metrics',
  summary: 'Sends the numbers that checks print to Graphite, InfluxDB or OpenTSDB.',
  description: `Checks of \`type\` \`metric\` have every result handled. Their output may be lines of Graphite, InfluxDB or OpenTSDB (\`put …\`), performance data of Monitoring Plugins behind a \`|\`, or our own \`--format json\`; each goes to any store. A number is stored under the same
path whatever format our checks print it in:

| | |
|---|---|
| Graphite | \`host.measurement.tags.field\`, as \`--format graphite\` prints it; what is no letter, digit, \`-\` or \`_\` in a name becomes \`_xHH\` |
| InfluxDB | measurement, tags and field, with nanoseconds; \`5i\`, texts and truth values stay what they are |
| OpenTSDB | \`measurement.field\` with the tags |

A path of Graphite has neither tags nor field: elsewhere it becomes a measurement with the field \`value\` and the tag \`host\`. Performance data has the check's name as measurement, its labels as fields, its values without their units, and as host the client that ran the check. Lines without a time have the time
of the check.

Requests hold up to 5,000 lines (InfluxDB) or 50 numbers (OpenTSDB), datagrams up to 1,400 bytes. A store that cannot be reached, or answers 429 or 5xx, is tried again until the time is over; the same numbers sent twice are stored once. Lines that are not what the format says, and numbers that the store refuses, do not keep
the others: they are counted, the first ones named, and the handler fails, which Sensu logs as an error. By UDP nobody tells what was lost.`,
  settings,
  sample: { store: 'influxdb', url: 'http://127.0.0.1:8086', database: 'sensu', tags: { client: ':::client.name:::' } },
  relations: [
    ({ url }) => {
      const { username, password } = new URL(url)
      return username + password === '' ? [] : ['url must not hold a user or password: set user and password']
    },
    ({ store, url }) => {
      const possible = storeProtocols[store]
      return possible.includes(protocolOf(url))
        ? []
        : [`url must begin with ${possible.map(name => `${name}://`).join(' or ')} for ${store}` as const]
    },
    ({ store, url }, isGiven) =>
      store === 'influxdb' && protocolOf(url) !== 'udp' && !isGiven('database')
        ? ['database is missing: InfluxDB needs it over HTTP']
        : [],
    ({ store }, isGiven) => {
      const needed = store === 'influxdb2' ? (['org', 'bucket', 'token'] as const) : []
      return needed.filter(name => !isGiven(name)).map(name => `${name} is missing: InfluxDB 2 needs it` as const)
    },
    (_, isGiven) =>
      isGiven('user') === isGiven('password') ? [] : ['user and password go together: give both or none'],
  ],
  handle(event, asked, context) {
    const origin = originOf(event, context.now())
    const format = asked.output_format ?? formatOf(event) ?? detectFormat(event.output, origin)
    if (format === undefined) {
      const [line = ''] = event.output.trimStart().split('\n', 1)
      const said = `the output has no line of a known format (${outputFormats.join(', ')}): "${printable(line, 100)}"`
      if (event.status !== 'OK') return { nothing: `the check failed, ${said}` }
      throw new Error(`${said}: set output_format, or correct the check`)
    }
    const parsed = parseOutput(event.output, format, origin)
    if (parsed.points.length + parsed.invalidCount === 0) return { nothing: 'the output has no numbers' }
    const target = targetOf(asked)
    const additions = additionsOf(event, asked)
    const points = parsed.points.map(point =>
      point.tags.has('host') || isPath(target, format) ? point : withHost(point, origin.host),
    )
    return {
      preview: [...linesFor(target, points, additions), ...invalidText(parsed, format)].join('\n'),
      run: async () => {
        context.stage(`sending ${points.length} numbers to ${placeOf(target)}`)
        const delivery = await sendNumbers(target, points, additions, context)
        return report(target, points.length, delivery, invalidText(parsed, format))
      },
    }
  },
})

function protocolOf(url: string): string {
  return new URL(url).protocol.slice(0, -1)
}

function targetOf({
  store,
  url,
  database,
  retention_policy: policy,
  user,
  password,
  org,
  bucket,
  token,
  ca_file,
  proxy,
}: Settings): Target {
  const basic =
    user !== undefined && password !== undefined
      ? Buffer.from(`${user}:${password.reveal()}`).toString('base64')
      : undefined
  const authorization = token !== undefined ? `Token ${token.reveal()}` : basic && `Basic ${basic}`
  const query = store === 'influxdb' ? { db: database, rp: policy } : store === 'influxdb2' ? { org, bucket } : {}
  const given = Object.entries(query).filter((entry): entry is [string, string] => entry[1] !== undefined)
  return {
    store,
    url: new URL(url),
    headers: authorization === undefined ? {} : { Authorization: authorization },
    query: Object.fromEntries(given),
    http: { ca_file, proxy },
  }
}

function additionsOf(event: SensuEvent, { prefix = '', tags }: Settings): Additions {
  const fill = (template: string) => fillTokens(template, event, value => value)
  const filled = Object.entries(tags).map(([name, template]) => [name, fill(template)] as const)
  // A token without a value leaves no tag: no store takes an empty one.
  return { prefix: fill(prefix), tags: new Map(filled.filter(([, value]) => value !== '')) }
}

function originOf(event: SensuEvent, nowMs: number): Origin {
  const seconds = event.executed ?? event.timestamp ?? nowMs / 1000
  return {
    check: event.check,
    host: event.origin ?? event.client,
    timeNs: BigInt(Math.floor(seconds)) * 1_000_000_000n,
  }
}

function formatOf({ raw }: SensuEvent): OutputFormat | undefined {
  const { check } = raw
  const named =
    typeof check === 'object' && check !== null && 'output_format' in check ? check.output_format : undefined
  return outputFormats.find(format => format === named)
}

/** A path of Graphite that goes to Graphite says itself whose it is. */
function isPath({ store }: Target, format: OutputFormat): boolean {
  return store === 'graphite' && format === 'graphite'
}

function withHost<T extends { readonly tags: ReadonlyMap<string, string> }>(point: T, host: string): T {
  return { ...point, tags: new Map([['host', host], ...point.tags]) }
}

function invalidText(
  { invalid, invalidCount, ignoredCount }: ReturnType<typeof parseOutput>,
  format: OutputFormat,
): string[] {
  const lines = invalid.map(line => `"${printable(line, 100)}"`).join(', ')
  const [is, first] = invalidCount === 1 ? ['line is', ''] : ['lines are', ', the first ones']
  return [
    ...(invalidCount > 0 ? [`${invalidCount} ${is} not ${format}${first}: ${lines}`] : []),
    ...(ignoredCount > 0 ? [`${ignoredCount} further lines were not looked at`] : []),
  ]
}

/** What was sent; throws when anything was not. */
function report(target: Target, count: number, delivery: Delivery, invalid: readonly string[]): string {
  const { sent, refusals, tooLong, noNumbers, failure } = delivery
  const where = `${target.store} at ${placeOf(target)}`
  const problems = [
    ...(failure === undefined ? [] : [failure]),
    ...refusals,
    ...(tooLong > 0 ? [`${tooLong} longer than one packet or request may be`] : []),
    ...invalid,
  ]
  const others =
    noNumbers === 0 ? '' : `; ${noNumbers} texts and truth values, which only InfluxDB stores, were left out`
  if (problems.length === 0) return `sent ${sent} numbers to ${where}${others}`
  throw new Error(`sent ${sent} of ${count - noNumbers} numbers to ${where}: ${problems.join('; ')}${others}`)
}
