import { domainToASCII } from 'node:url'
import type { SensuEvent } from '../plugin/event.js'
import { valueAt } from '../plugin/event-text.js'
import { type Action, defineHandler } from '../plugin/handler.js'
import { bareAddress, renderMail, sendMail } from '../plugin/mail-delivery.js'
import { mailText } from '../plugin/mail-text.js'
import { certificatesRule, hostRule, isHost, oneLineRule } from '../plugin/setting-rules.js'
import type { SettingTable, SettingValues } from '../plugin/settings-table.js'

const contactSettings = {
  to: { type: 'texts', required: true, rule: addressRule, summary: 'Addresses.' },
  severities: {
    type: 'texts',
    choices: ['warning', 'critical', 'unknown'],
    summary: 'Only problems that have one of these states; default: all.',
  },
} as const satisfies SettingTable

export default defineHandler({
  name: 'handler-mail',
  summary: 'Sends a mail for each event, through an SMTP server with TLS and a login if need be.',
  description: `The subject is the one line that matters (\`CRITICAL: web1 on kvm-host: memory_check: memory in use 95 % (critical above 90 %)\`), the text, plain and as simple HTML, has the rest. All mails of one problem, its end included, belong to one thread, whatever
server sends them; a mail that arrives twice has the same \`Message-ID\`.

With \`tls\`, \`starttls\` refuses to go on when the server does not offer it, \`tls\` is TLS from the start (port 465), \`opportunistic\` takes what it gets. Unless set it is \`none\` for a server on this machine and \`starttls\` for others. The server's certificate must be
valid for \`host\` and come from an authority that Node.js knows or \`ca_file\` names; \`verify: false\` takes any. A password goes over an encrypted connection only, or to this machine.

\`to\` gets every mail. \`contacts\` are further ones: each gets the problems with its \`severities\`, and their ends. When the check or the client has \`contacts\`, a name or a list of names, only those of them are asked.

\`\`\`json
{"handler-mail": {"host": "mail.example.com", "contacts": {"ops": {"to": "ops@example.com"}, "on-call": {"to": ["duty@example.com"], "severities": ["critical"]}}}}
\`\`\`

A server that puts the mail off (4xx, greylisting) is tried again within \`timeout\`, which for most greylisting is too short: let the server's own queue do that, by sending through a relay of yours.`,
  settings: {
    to: {
      type: 'texts',
      rule: addressRule,
      summary: 'Addresses that get every mail, `ops@example.com` or `Operators <ops@example.com>`.',
    },
    contacts: { type: 'hashes', settings: contactSettings, summary: 'Further recipients by name.' },
    from: {
      type: 'text',
      rule: addressRule,
      summary: "The sender's address; default: `sensu@` and this machine's name.",
    },
    host: { type: 'text', rule: hostRule, default: 'localhost', summary: 'The mail server.' },
    port: {
      type: 'integer',
      minimum: 1,
      maximum: 65_535,
      summary: 'Its port; default: 465 with `"tls": "tls"`, else 587 with a login, else 25.',
    },
    tls: {
      type: 'choice',
      choices: ['starttls', 'tls', 'opportunistic', 'none'],
      summary:
        'Whether TLS is insisted on (`starttls`, `tls`) or not; default: `none` for a server on this machine, else `starttls`.',
    },
    verify: { type: 'boolean', default: true, summary: "Whether the server's certificate must be valid." },
    ca_file: {
      type: 'file',
      rule: certificatesRule,
      summary: "Certificates (PEM) of the authorities that may have issued the server's.",
    },
    username: { type: 'text', rule: oneLineRule, summary: 'The login at the mail server.' },
    password: { type: 'secret', rule: oneLineRule, summary: 'Its password.' },
  },
  sample: { to: ['ops@example.com'], from: 'Sensu <sensu@example.com>', host: 'localhost' },
  relations: [
    ({ to, contacts }) =>
      to.length === 0 && Object.keys(contacts).length === 0 ? ['to is missing: give to, contacts or both'] : [],
    (_, isGiven) =>
      isGiven('username') === isGiven('password') ? [] : ['password must go with username, and username with password'],
    ({ tls, host }, isGiven) =>
      isGiven('password') && ['none', 'opportunistic'].includes(securityOf({ tls, host })) && !isLocal(host)
        ? ['tls must be starttls or tls with a password']
        : [],
  ],
  async handle(event, settings, context): Promise<Action> {
    const recipients = recipientsOf(event, settings.to, settings.contacts)
    if (recipients.length === 0) return { nothing: 'no recipient is to hear of it' }
    const { host, verify, username, password } = settings
    const from = settings.from ?? `sensu@${context.hostname}`
    const domain = bareAddress(from).split('@').at(-1) ?? context.hostname
    const { references, ...text } = mailText(event, domain, settings.dashboard_url)
    const headers = { 'Auto-Submitted': 'auto-generated', 'X-Sensu-Client': event.client, 'X-Sensu-Check': event.check }
    const mail = { ...text, references, inReplyTo: references, from, to: recipients, headers }
    const security = securityOf(settings)
    const login =
      username === undefined || password === undefined ? undefined : { user: username, password: password.reveal() }
    const port = settings.port ?? (security === 'tls' ? 465 : login === undefined ? 25 : 587)
    const server = { host, port, security, verify, authorities: settings.ca_file, login, hostname: context.hostname }
    return {
      preview: (await renderMail(mail)).trimEnd(),
      async run() {
        context.stage(`sending mail through ${host}:${port}`)
        await sendMail(mail, server, context)
        return `sent to ${recipients.map(bareAddress).join(', ')} through ${host}:${port}`
      },
    }
  },
})

function securityOf({ tls, host }: { tls: 'starttls' | 'tls' | 'opportunistic' | 'none' | undefined; host: string }) {
  return tls ?? (isLocal(host) ? 'none' : 'starttls')
}

function isLocal(host: string): boolean {
  return /^(?:localhost|127\.\d+\.\d+\.\d+|::1)$/.test(host)
}

function addressRule(text: string): string | undefined {
  const [, domain] = /^[^\s@<>,;:()[\]]+@([^\s@<>,;]+)$/.exec(bareAddress(text)) ?? []
  const isDomain = domain !== undefined && (/^\[[\w.:]+\]$/.test(domain) || isHost(domainToASCII(domain)))
  const isOne = !/<.*</s.test(text) && !/\p{Cc}/u.test(text)
  return isDomain && isOne ? undefined : 'must be an address such as ops@example.com'
}

const severityOf: Readonly<Record<string, string>> = { '1': 'warning', '2': 'critical' }

/** Whom an event goes to, each once. */
function recipientsOf(
  event: SensuEvent,
  to: readonly string[],
  contacts: Readonly<Record<string, SettingValues<typeof contactSettings>>>,
): string[] {
  const named = namesAt(event, 'check.contacts') ?? namesAt(event, 'client.contacts')
  const states = statesOf(event)
  const asked = Object.entries(contacts).filter(
    ([name, { severities }]) =>
      (named === undefined || named.includes(name)) &&
      (severities.length === 0 || severities.some(severity => states.includes(severity))),
  )
  const all = [...to, ...asked.flatMap(([, contact]) => contact.to)]
  return [...new Map(all.map(address => [bareAddress(address), address])).values()]
}

function namesAt(event: SensuEvent, path: string): string[] | undefined {
  const value = valueAt(event.raw, path)
  if (typeof value === 'string') return [value]
  return Array.isArray(value) ? value.filter(name => typeof name === 'string') : undefined
}

/** The state of a problem; of its end all that it had, so that who heard of it hears of that, too. */
function statesOf({ action, status, history }: SensuEvent): string[] {
  if (action !== 'resolve') return [status.toLowerCase()]
  const before = history.slice(0, -1)
  return before.slice(before.lastIndexOf('0') + 1).map(state => severityOf[state] ?? 'unknown')
}
