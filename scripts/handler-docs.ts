import { commonSettings, type Handler } from '../plugin/handler.js'
import { handlerOptions } from '../plugin/handler-arguments.js'
import { expectsText, type Setting, type SettingTable } from '../plugin/settings-table.js'
import { code, escapeCell, optionTable, page, table } from './docs.js'

/** Everything below docs/handlers/, by file name: an index, and a page and a sample configuration for each handler. */
export function handlerDocumentation(handlers: readonly Handler[]): Map<string, string> {
  const sorted = [...handlers].sort((a, b) => a.name.localeCompare(b.name, 'en'))
  return new Map([
    ['README.md', indexPage(sorted)],
    ...sorted.flatMap(handler => [
      [`${handler.name}.md`, handlerPage(handler)] as const,
      [`${handler.name}.json`, sampleHandlerConfiguration(handler)] as const,
    ]),
  ])
}

/** A file for conf.d: the handler's definition for Sensu, and its own section. */
export function sampleHandlerConfiguration({ name, sample, sampleHandler }: Handler): string {
  // Longer than the handler's own timeout: Sensu's would end it in mid-sentence.
  const definition = { type: 'pipe', command: name, timeout: 10, ...sampleHandler }
  const handlers = { [name.replace(/^handler-/, '')]: definition }
  return `${JSON.stringify({ handlers, [name]: sample }, undefined, 2)}\n`
}

function handlerPage(handler: Handler): string {
  const { name, summary, description, settings } = handler
  const common: SettingTable = commonSettings
  const isOwn = (attribute: string, setting: Setting) =>
    common[attribute] === undefined || defaultText(common[attribute]) !== defaultText(setting)
  const own = Object.fromEntries(Object.entries(settings).filter(entry => isOwn(...entry)))
  const sections = [
    `# ${name}`,
    summary,
    ...(description === undefined ? [] : [description.trim()]),
    '## Settings',
    `In the section \`${name}\` of the configuration, besides the [common ones](README.md#settings-of-every-handler):`,
    settingTable(own),
    '## Sample configuration',
    `\`\`\`json\n${sampleHandlerConfiguration(handler).trim()}\n\`\`\``,
  ]
  return page(sections, 'handlers')
}

function settingTable(settings: SettingTable): string {
  const rows = rowsOf(settings)
  return rows.length === 0 ? 'None of its own.' : table(['setting', 'what it does', 'value', 'default'], rows)
}

function rowsOf(settings: SettingTable, prefix = ''): string[][] {
  return Object.entries(settings).flatMap(([name, setting]) => [
    [
      code(prefix + name) +
        (setting.type === 'secret' ? `, ${code(`${prefix}${name}_file`)}, ${code(`${prefix}${name}_env`)}` : ''),
      escapeCell(setting.summary) + (setting.required ? ' Required.' : ''),
      escapeCell(expectsText(setting)) + (setting.type === 'secret' ? ' (secret)' : ''),
      defaultText(setting),
    ],
    ...(setting.type === 'hashes' ? rowsOf(setting.settings, `${prefix}${name}.NAME.`) : []),
  ])
}

function defaultText(setting: Setting): string {
  return 'default' in setting && setting.default !== undefined ? escapeCell(code(String(setting.default))) : ''
}

function indexPage(handlers: readonly Handler[]): string {
  return page(
    [
      '# Handlers',
      table(
        ['handler', 'what it does'],
        handlers.map(({ name, summary }) => [`[${name}](${name}.md)`, summary]),
      ),
      introduction,
      '## Into the configuration',
      wiring,
      '## Settings of every handler',
      settingTable(commonSettings),
      settingsText,
      '## Command line',
      optionTable(handlerOptions),
      commandLineText,
      '## Failures',
      failuresText,
    ],
    'handlers',
  )
}

const introduction = `Each is an executable that reads one event, as JSON, on standard input, from \`sensu-kvm-server\`, from a real Sensu 1.9 server (\`"type": "pipe"\`), or by hand. It prints one line of what
it did. Exit status: 0 done, or nothing to do; 1 failed; 2 the configuration or the command line cannot be used. Sensu writes line and status to its log.`

const wiring = `A handler needs two things in \`conf.d\`: its definition for Sensu, which says when it runs, and a section of its own, which says what it does. Each page has a file that has both. With the executables
in \`/usr/local/bin\`:

\`\`\`json
{
  "handlers": {
    "log": {"type": "pipe", "command": "/usr/local/bin/handler-log", "timeout": 10, "severities": ["warning", "critical"], "filters": ["production"]},
    "default": {"type": "set", "handlers": ["log"]}
  },
  "filters": {
    "production": {"attributes": {"client": {"environment": "production"}}}
  },
  "handler-log": {"file": "/var/log/sensu/events.json"}
}
\`\`\`

- \`timeout\` is Sensu's, in seconds. The handler's own (\`timeout\` in its section, 8 s unless its page says otherwise) must be shorter: then it ends its retries and says what was wrong, where Sensu would end it without a word.
- \`severities\` (\`ok\`, \`warning\`, \`critical\`, \`unknown\`) and \`filter\` or \`filters\` say which events come here; a resolution comes when the problem did. \`handle_flapping\` and \`handle_silenced\` let in what Sensu
  holds back otherwise.
- A check that fails makes an event each time it runs: let \`"occurrences"\` and \`"refresh"\` of the check, with Sensu's filter \`occurrences\`, say how often a handler hears of it.
- Two uses of one handler have two sections: \`"command": "handler-log --config-section log-of-databases"\`.`

const settingsText = `The section is named as the handler. It is read from the files that the server has read (\`$SENSU_LOADED_TEMPFILE\`, which Sensu sets), else from those in \`$SENSU_CONFIG_FILES\` (separated by colons),
else from \`/etc/sensu/config.json\` and \`/etc/sensu/conf.d\`, and merged as Sensu does it.

A setting that is not known, wrong, missing, or contradicts another is an error, and so is a file or an environment variable that cannot be read, or that holds what the setting cannot be (no certificate, no URL). All of them are told in one run, before an event is read, with status 2, and nothing is
sent: a line each, with file, section, setting and rule, in the order of the handler's page. Only what cannot be judged yet is left out: a rule between settings while one of them is wrong, and what is missing while a file of the configuration cannot be read. \`--validate\` tells the same.
What a setting leads to outside (a server, a file to write to, a directory) is looked at when it is used, as it may come and go: that is a failure of the one event, with status 1.

A secret can stand in the section itself, in a file (\`NAME_file\`; a line feed at its end does not count), or in an environment variable of the server (\`NAME_env\`). It is never printed; in \`--dry-run\` it is \`REDACTED\`. Sensu's own log of what a file changes hides \`webhook_url\`,
\`routing_key\`, \`secret\` and \`password\` by their names; keep the others (\`authorization\`, \`headers\`, \`proxy\`) out of the section, or let only the server read its log.

Tokens \`:::client.name:::\`, \`:::check.output|no output:::\` stand for what the event has there, or what follows \`|\`, or nothing; in a URL their values are encoded.`

const commandLineText = `Try one by hand with an event from the API:

\`\`\`
curl -s http://127.0.0.1:4567/events/web1/state_check | handler-log -d /etc/sensu/conf.d --dry-run
\`\`\``

const failuresText = `What may pass (a connection refused or lost, an answer such as 429 or 503, a mail server's 4xx) is tried again, after a quarter of a second, then after longer pauses up to two seconds, each shortened at random so that many handlers
do not come back at once; \`Retry-After\` is kept to when there is time. What a receiver took without our hearing of it comes twice: better than not at all. All of it ends before \`timeout\`. A try that hangs is given up after 60 % of the time that is left, so that there is another one.

What a handler could not deliver is in the one line that it prints, with the reason. Sensu hands an event to its handlers once; the next run of a check that still fails is the next event.`
