import { createHmac, randomUUID } from 'node:crypto'
import { type Action, defineHandler } from '../plugin/handler.js'
import { deliver, httpSettings, previewOf } from '../plugin/http-delivery.js'
import { headerValueRule } from '../plugin/setting-rules.js'

const ownHeaders = [
  'content-type',
  'user-agent',
  'sensu-event-id',
  'sensu-delivery',
  'sensu-signature',
  'authorization',
]
const connectionHeaders = ['host', 'content-length', 'transfer-encoding', 'connection', 'accept', 'expect', 'upgrade']

export default defineHandler({
  name: 'handler-webhook',
  summary: 'Sends the event as it is, by HTTP POST, signed with HMAC-SHA256.',
  description: `The body is the event's JSON as the server hands it over. With it go \`Sensu-Event-Id\` (the same for all that happens to one problem) and \`Sensu-Delivery\` (the same for all tries of one delivery: a receiver that has
seen it may ignore it), and, when \`secret\` is set:

\`\`\`
Sensu-Signature: t=1767607200,v1=5257a869e7…
\`\`\`

\`t\` is the time in seconds since 1970, \`v1\` the HMAC-SHA256, in hexadecimal and with the secret as the key, of \`t\`, a dot, and the body. A receiver computes the same over the bytes it got, compares in constant time, and refuses a
time that is more than some minutes away:

\`\`\`js
const [, t, v1] = /^t=(\\d+),v1=([0-9a-f]{64})$/.exec(request.headers['sensu-signature']) ?? []
const wanted = createHmac('sha256', secret).update(\`\${t}.\`).update(body).digest()
const isOurs = v1 !== undefined && timingSafeEqual(wanted, Buffer.from(v1, 'hex')) && Math.abs(Date.now() / 1000 - t) < 300
\`\`\`

Any answer of 2xx is success. Redirects are not followed: neither the signature nor other secrets reach a server that is not configured here. The server's certificate is verified, always.`,
  settings: {
    webhook_url: {
      type: 'secret',
      protocols: ['http', 'https'],
      required: true,
      summary: 'Where to send to. What follows the host is taken for secret.',
    },
    secret: { type: 'secret', summary: 'Key of the signature; without it there is none.' },
    authorization: {
      type: 'secret',
      rule: headerValueRule,
      summary: 'Value of the header `Authorization`, for example `Bearer …`.',
    },
    headers: {
      type: 'secrets by name',
      nameRule: headerNameRule,
      rule: headerValueRule,
      summary: 'Further headers; their values are taken for secret.',
    },
    ...httpSettings,
  },
  sample: { webhook_url: 'https://alerts.example.com/sensu', secret_file: '/etc/sensu/webhook.secret' },
  handle(event, settings, context): Action {
    const { webhook_url: url, secret, authorization, headers } = settings
    const time = Math.floor(context.now() / 1000)
    const body = event.json
    const delivery = {
      url: url.reveal(),
      body,
      headers: {
        'Content-Type': 'application/json',
        'User-Agent': 'sensu-kvm',
        'Sensu-Event-Id': event.id.replace(/[^\x21-\x7e]/g, '_'),
        'Sensu-Delivery': randomUUID(),
        ...(authorization === undefined ? {} : { Authorization: authorization.reveal() }),
        ...Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, value.reveal()])),
        ...(secret === undefined ? {} : { 'Sensu-Signature': signature(secret.reveal(), time, body) }),
      },
    }
    const { origin } = new URL(delivery.url)
    return {
      preview: previewOf(delivery, ['Authorization', ...Object.keys(headers)], true),
      async run() {
        const { code } = await deliver(delivery, settings, context)
        return `sent to ${origin}, which answers ${code}`
      },
    }
  },
})

function signature(secret: string, time: number, body: string): string {
  return `t=${time},v1=${createHmac('sha256', secret).update(`${time}.`).update(body).digest('hex')}`
}

function headerNameRule(name: string): string | undefined {
  if (!/^[\w!#$%&'*+.^`|~-]+$/.test(name)) return 'must be the name of a header'
  const lower = name.toLowerCase()
  if (connectionHeaders.includes(lower)) return 'must be left out: it belongs to the connection'
  return ownHeaders.includes(lower) ? 'must be left out: the handler sets it' : undefined
}
