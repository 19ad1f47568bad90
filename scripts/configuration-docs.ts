import { agentSettings } from '../agent/settings.js'
import { type OwnSetting, SECTION } from '../sensu/own-settings.js'
import { serverSettings } from '../server/settings.js'

/** docs/configuration.md: how the configuration is read, and every setting of the project's own section, from its tables. */
export function configurationPage(): string {
  return [
    beginning,
    table(agentSettings),
    sample(agentSettings),
    server,
    table(serverSettings),
    sample(serverSettings),
    end,
  ]
    .map(section => section.trim())
    .join('\n\n')
    .concat('\n')
}

function table(settings: readonly OwnSetting[]): string {
  const rows = settings.map(
    setting => `| \`${setting.key}\` | ${kindOf(setting)} | ${defaultOf(setting)} | ${setting.summary} |`,
  )
  return ['| setting | value | default | what it does |', '|---|---|---|---|', ...rows].join('\n')
}

function kindOf(setting: OwnSetting): string {
  switch (setting.type) {
    case 'choice':
      return setting.values.map(value => `\`${value}\``).join(' or ')
    case 'integer':
      return `integer, at least ${setting.minimum.toLocaleString('en')}`
    case 'boolean':
      return 'true or false'
    case 'string':
      return 'text'
  }
}

function defaultOf({ default: value }: OwnSetting): string {
  if (typeof value === 'number') return value.toLocaleString('en')
  return value === '' ? 'empty' : `\`${String(value)}\``
}

/** All settings with their defaults, as they stand in a file. */
function sample(settings: readonly OwnSetting[]): string {
  const section: Record<string, unknown> = {}
  for (const { key, default: value } of settings) place(section, key.split('.'), value)
  return `With their defaults:\n\n\`\`\`json\n${JSON.stringify({ [SECTION]: section }, undefined, 2)}\n\`\`\``
}

function place(section: Record<string, unknown>, [first = '', ...rest]: string[], value: unknown): void {
  if (rest.length === 0) {
    section[first] = value
    return
  }
  const inner = { ...(section[first] as Record<string, unknown> | undefined) }
  place(inner, rest, value)
  section[first] = inner
}

const beginning = `
# Configuration

The agent reads what \`sensu-client\` 1.9 reads, where it reads it: \`/etc/sensu/config.json\` (\`-c FILE\`), then every \`*.json\` below
\`/etc/sensu/conf.d\` (\`-d DIR[,DIR]\`), at any depth, in the order of their names. An existing configuration is used as it is.

- A later file is laid over the earlier ones: hashes are merged, lists are united, everything else is replaced.
- Environment variables (\`RABBITMQ_URL\`, \`REDIS_URL\`, \`REDIS_SENTINEL_URLS\`, \`SENSU_TRANSPORT_NAME\`, \`SENSU_CLIENT_NAME\`, \`SENSU_CLIENT_ADDRESS\`,
  \`SENSU_CLIENT_SUBSCRIPTIONS\`, \`SENSU_API_PORT\`) come before the files, so the files win.
- \`--validate_config\` says what is wrong, all at once, and exits with 0 or 2. \`--print_config\` prints what all files together mean, without secrets.
- HUP reads everything again when something has changed (when nothing has, it ends a process that is neither in the background nor under a service manager, as it ends Sensu's). A configuration that is not valid is refused with the same report, and the old one stays in force; what takes
  effect only after a restart is named in the log.

[conf.d/](../conf.d/) is a complete one to start from: \`client.json\` says who this is, \`transport.json\` and \`rabbitmq.json\` (or \`redis.json\`) how to reach the server,
the other files are checks and handlers, one each. What differs from Sensu: [differences.md](differences.md).

## TLS

\`rabbitmq.ssl\` and \`redis.tls\` (or \`ssl\`) are \`true\` or a hash of files, the same for both:

\`\`\`json
{"rabbitmq": {"host": "broker.example", "port": 5671, "ssl": {"ca_file": "/etc/sensu/ssl/ca.pem", "cert_chain_file": "/etc/sensu/ssl/cert.pem", "private_key_file": "/etc/sensu/ssl/key.pem"}}}
\`\`\`

With a \`ca_file\` the server's certificate must come from that authority and name the host as it is configured (with sentinels: as they name it); with \`"verify_peer": true\` and no \`ca_file\`, from one of the authorities that
Node.js knows (those in \`$NODE_EXTRA_CA_CERTS\` too). With neither, Sensu's own configurations, any certificate is accepted, as Sensu accepts it, and the log says so at each start. A server that is
refused is tried again like one that is away; the log says whether its certificate is not trusted or is for another host. \`amqps://\` is like \`"ssl": true\`; \`rediss://\`, which Sensu does not know, is
always verified.

## The agent's own section

Sensu ignores the section \`${SECTION}\`, so one configuration serves both. A misspelt setting is an error. Dots separate levels: \`spool.max_bytes\` is \`{"${SECTION}": {"spool": {"max_bytes": …}}}\`.
`

const server = `
## The server's own settings

\`sensu-kvm-server\` reads what \`sensu-server\` and \`sensu-api\` 1.9 read. Its own settings are below \`server\` in the same section; the agent does not look at them.
`

const end = `
## What the agent keeps on disk

- **The spool**, \`spool-CLIENT\` in the state directory: results the transport has not confirmed. They are sent in order as soon as it takes results again, by this process or
  the next one. While the transport is there a result is written only when its confirmation takes longer than 100 ms; while it is away, at once. \`kill -9\`
  loses what was taken over in the last milliseconds, at most; the death of the machine, what \`spool.fsync_interval_ms\` says besides. Results whose confirmation was lost with the connection are sent twice, in order, 500 at most: so many
  are under way at once. What the broker has confirmed is the broker's: Sensu's queues are not on disk and die with it.
  Each client has its own directory; of two agents with one name on a host the second keeps its results in memory, and says so.
- **State of checks** that compare with their last run, and the guests that \`--per-guest\` has seen.

The state directory is \`$SENSU_KVM_STATE_DIR\`, else \`$STATE_DIRECTORY\` (systemd), else \`/var/lib/sensu-kvm\`.

## What the agent says about itself

On the HTTP socket (\`client.http_socket\`, 127.0.0.1:3031), protected like its other pages by \`protect_all_endpoints\`:

- \`GET /metrics\`: Prometheus' text format. Commands run by kind and status, their durations, failures, those in flight and queued; results taken over, waiting and dropped, the spool's size;
  connection and reconnections; delay of the event loop; calls to libvirt by procedure and outcome, with their times; memory and processor time.
- \`GET /healthz\`: 200 \`ok\` while results have somewhere to go and the event loop is alive, else 503 and the reason. Like Sensu's sockets it opens with the first connection.

Under systemd (\`Type=notify\`, [packaging/sensu-kvm-agent.service](../packaging/sensu-kvm-agent.service)) the agent sends \`READY=1\` when it works, \`RELOADING=1\`, \`STOPPING=1\`, \`STATUS=\`, and
\`WATCHDOG=1\` at half of \`WatchdogSec\`. Node.js has no datagram sockets of the Unix kind, so \`systemd-notify\` speaks for it (Perl where there is none): one process of a few milliseconds
for each message. The unit needs \`NotifyAccess=all\`.

## Secrets

Log lines hide what members named in \`client.redact\` or in Sensu's default list hold, wherever they occur, the same inside of texts that contain JSON, and passwords in URLs. Results themselves
are not changed, and keepalives are redacted as Sensu does it. A password in another place, as in \`--password hunter2\`, cannot be recognised: put it into the client's definition under such a name, and use a token.

Tokens are put into commands as they are, as Sensu does it. With \`tokens.quote\` each value is quoted for the place it stands at: \`:::name:::\`, \`":::name:::"\` and \`':::name:::'\` are all one word, whatever the
value is. A command with backquotes, here-documents, \`\${…}\`, \`$((…))\`, \`case\` or comments besides a token is refused (status 3), for there quoting is not certain; a shell within the shell
(\`sh -c ":::name:::"\`, \`eval\`) reads the value once more, which nothing can prevent.
`
