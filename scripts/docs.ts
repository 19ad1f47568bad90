import type { Check } from '../plugin/check.js'
import { commonOptions, deliveryOptions } from '../plugin/command-line.js'
import { guestOptions } from '../plugin/guests.js'
import { kebabCase, kindOf, type Option, type OptionTable } from '../plugin/options.js'

/** Everything below docs/checks/, by file name: an index, and a page and a sample configuration for each check. */
export function documentation(checks: readonly Check<never>[]): Map<string, string> {
  const sorted = [...checks].sort((a, b) => a.name.localeCompare(b.name, 'en'))
  return new Map([
    ['README.md', indexPage(sorted)],
    ...sorted.flatMap(check => [
      [`${check.name}.md`, checkPage(check)] as const,
      [`${check.name}.json`, sampleConfiguration(check)] as const,
    ]),
  ])
}

/** A check's definition for Sensu, with the limits it has anyway spelled out so that they can be changed in place. */
export function sampleConfiguration(check: Check<never>): string {
  const limits = Object.entries(ownOptions(check)).flatMap(([name, option]) =>
    isLimit(name, option) && 'default' in option && option.default !== undefined && option.alias !== undefined
      ? [`--${kebabCase(name)} ${option.default}`]
      : [],
  )
  const metric = check.format !== 'nagios'
  const definition = {
    ...(metric ? { type: 'metric' } : {}),
    command: [check.name, ...(check.sample === undefined ? [] : [check.sample]), ...limits].join(' '),
    subscribers: ['kvm'],
    interval: 60,
    // Longer than the check's own --timeout: Sensu's would turn an honest UNKNOWN into a CRITICAL.
    timeout: 40,
    handlers: [metric ? check.format : 'default'],
  }
  return `${JSON.stringify({ checks: { [check.name.replace(/^check-/, '')]: definition } }, undefined, 2)}\n`
}

function isLimit(name: string, { type }: Option): boolean {
  return type === 'range' || /^(?:warn(?:ing)?|crit(?:ical)?)$/.test(name)
}

/** A check's own page. */
export function checkPage(check: Check<never>): string {
  const sections = [
    `# ${check.name}`,
    check.summary,
    ...(check.description === undefined ? [] : [check.description.trim()]),
    '## Options',
    optionTable(ownOptions(check)),
    commonText(check),
    ...(check.rubyLine ? [rubyText(check.name)] : []),
    ...(check.readWrite === true
      ? ['Needs the read-write socket of libvirt: run it as root, or as a user whom libvirt lets in.']
      : []),
    '## Sample configuration',
    `\`\`\`json\n${sampleConfiguration(check).trim()}\n\`\`\``,
  ]
  return page(sections)
}

function commonText({ guests, local }: Check<never>): string {
  if (local)
    return 'The [common options](README.md#common-options) apply as well, but for `--uri`: nothing is asked of libvirt.'
  return guests
    ? 'The options that [select guests](README.md#guests) and the [common ones](README.md#common-options) apply as well.'
    : 'The [common options](README.md#common-options) apply as well.'
}

function rubyText(name: string): string {
  return `Takes the place of \`${name}.rb\` of sensu-plugins: [what stays the same](README.md#in-the-place-of-a-ruby-plugin).`
}

function ownOptions(check: Check<never>): OptionTable {
  return Object.fromEntries(Object.entries(check.options).filter(([name]) => !(check.guests && name in guestOptions)))
}

function indexPage(checks: readonly Check<never>[]): string {
  return page([
    '# Checks',
    table(
      ['check', 'what it looks at'],
      checks.map(check => [`[${check.name}](${check.name}.md)`, check.summary]),
    ),
    'Exit status: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN; the worst one wins in the order CRITICAL, WARNING, UNKNOWN, OK.',
    '## Common options',
    optionTable(commonOptions),
    '## Ranges',
    rangesText,
    '## Guests',
    optionTable({ ...guestOptions, ...deliveryOptions }),
    guestsText,
    '## In the place of a Ruby plugin',
    rubyPluginsText(checks),
    '## Formats',
    formatsText,
  ])
}

const rangesText = `A limit is \`[@][start:][end]\`, as the Monitoring Plugins write it. A value outside \`start\`..\`end\` violates it; both ends belong to the range.

| range | alerts when the value is |
|---|---|
| \`10\` | below 0 or above 10 |
| \`10:\` | below 10 |
| \`~:10\` | above 10 |
| \`10:20\` | below 10 or above 20 |
| \`@10:20\` | from 10 to 20 |
| \`~:\` | never: switches a limit off |

An empty range, a lone \`:\`, an end below the start, exponents and units (\`80%\`) are refused.`

const guestsText = `With \`--guest-limits\`, where a check has it, limits may be set in a guest's own libvirt metadata: attributes with the names of the check's options, in an element with the
check's name. They win over the command line for that guest.

\`\`\`sh
virsh metadata web1 urn:sensu-kvm --key sensu-kvm --live --config --set '<limits><check-kvm-memory warning="95" critical="98"/></limits>'
\`\`\`

With \`--per-guest\` each guest gets a result of its own, whose source is the guest's name in the characters that Sensu allows: letters, digits,
\`.\`, \`-\` and \`_\` stay, every other byte becomes \`_x\` and two upper-case hexadecimal digits (\`my vm\` is \`my_x20vm\`), and a \`_\` in front of what looks
like that becomes \`_x5F\`. Two guests never share a source. The check's own result then only counts the guests; it is not OK only when something
about the host itself is wrong or the results could not be handed over.`

function rubyPluginsText(checks: readonly Check<never>[]): string {
  const names = checks.filter(({ rubyLine }) => rubyLine).map(({ name }) => code(`${name}.rb`))
  return `These take the place of plugins of sensu-plugins: ${names.join(', ')}. A check definition for one of them works with the path of ours in its
place; beside each executable there is a link with the plugin's name. Option letters, long names, defaults, exit statuses and the first line of the output are the plugin's, and win over
the common options where those have the same letter or name.

The command line is read as there: a value may follow its letter at once (\`-w80\`) and begin with a dash, letters of switches may be joined, long names may be cut short, the last of several
counts; \`_\` is as good as \`-\` in long names, and a percent sign behind a number is ignored. Different is that what is no option or no number is refused with exit status 3,
where the plugin ignored the one and took the other for 0, and that \`--help\` exits 3. Regular expressions may have Ruby's \`\\A\`, \`\\z\`, \`\\h\`, POSIX classes and a leading \`(?i)\`;
what else only Ruby knows is refused.

Performance data follow on a line of their own, unless the first line has a \`|\` itself, of which there must be one only. Details and the other formats are there as for every check.`
}

const formatsText = `\`nagios\` prints a line of at most 255 characters, a line for each object that is not OK, and performance data. The other formats print numbers only:
\`graphite\`, \`influxdb\` (line protocol), \`opentsdb\` (telnet \`put\`), \`prometheus\` (text exposition without time stamps, percentages as ratios)
and \`json\` (numbers and findings). The exit status is the same in all of them.`

/** The options of a command line as a table. */
export function optionTable(options: OptionTable): string {
  const rows = Object.entries(options).map(([name, option]) => [
    code(
      [option.alias === undefined ? '' : `-${option.alias}, `, `--${kebabCase(name)}`, placeholder(option)].join(''),
    ),
    escapeCell(option.summary),
    option.type === 'choice'
      ? option.choices.map(code).join(', ')
      : option.type === 'flag'
        ? ''
        : escapeCell(kindOf(option).expects(option)),
    'default' in option && option.default !== undefined ? escapeCell(code(String(option.default))) : '',
  ])
  return rows.length === 0 ? 'None of its own.' : table(['option', 'what it does', 'takes', 'default'], rows)
}

function placeholder(option: Option): string {
  return option.type === 'flag' ? '' : ` ${kindOf(option).placeholder}${option.type === 'strings' ? '…' : ''}`
}

/** A table in Markdown. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map(() => '---'), ...rows].map(cells => `| ${cells.join(' | ')} |`).join('\n')
}

/** Text as code in Markdown. */
export function code(text: string): string {
  return `\`${text}\``
}

/** Text that may stand in a cell of a table. */
export function escapeCell(text: string): string {
  return text.replaceAll('|', '\\|')
}

/** A page of paragraphs; `from` says what it is made of. */
export function page(sections: readonly string[], from = 'checks'): string {
  return `<!-- Made by \`npm run docs\` from the ${from}; change those. -->\n\n${sections.join('\n\n')}\n`
}
