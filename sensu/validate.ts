import { parseCron } from './cron.js'
import { entriesOf, isInteger, isNumeric, isObject, isSet, isTruthy, keysOf, member } from './json-value.js'
import { parseClockTime, windowDays } from './time-windows.js'
import type { Category, Json, JsonObject, Service } from './types.js'

/** A rule that is broken: the definition concerned and Sensu 1.9's text. */
export type Violation = { object: Json; message: string }

type Test = (value: Json | undefined) => boolean
type Report = (message: string, object?: Json) => void

/** Checks a definition; reports every broken rule, in order. */
type Rule = (definition: JsonObject, report: Report) => void

// What a value may be.
const isString: Test = value => typeof value === 'string'
/** Also one that is not UTF-8. */
const isText: Test = value => isString(value) || Buffer.isBuffer(value)
const isBoolean: Test = value => typeof value === 'boolean'
const isArray: Test = value => Array.isArray(value)
const isHash: Test = value => isObject(value)
const isPositive: Test = value => isNumeric(value) && Number(value) > 0
const isFilledString: Test = value => typeof value === 'string' && value !== ''
const isPositiveInteger: Test = value => isInteger(value) && value > 0
const matches =
  (pattern: RegExp): Test =>
  value =>
    typeof value === 'string' && pattern.test(value)
const oneOf =
  (...values: string[]): Test =>
  value =>
    typeof value === 'string' && values.includes(value)
const itemsAre =
  (test: Test): Test =>
  value =>
    Array.isArray(value) && value.every(test)

const isName = matches(/^[A-Za-z0-9_.-]+$/)
const isAggregateName = matches(/^[A-Za-z0-9_.:|-]+$/)
const isSource = matches(/^[A-Za-z0-9_.-]*(?::::[A-Za-z0-9_|.-]+:::[A-Za-z0-9_.-]*|[A-Za-z0-9_.-]+)$/)
const isHookKey = matches(/^(?:ok|warning|critical|unknown|non-zero|\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])$/)
const isCron: Test = value => typeof value === 'string' && parseCron(value) !== undefined

// How rules are written. `must` always applies, `may` only when the attribute is set, `when…` when it is truthy.
const must =
  (key: string, test: Test, message: string): Rule =>
  (definition, report) => {
    if (!test(member(definition, key))) report(message)
  }
const onlyIf =
  (condition: (definition: JsonObject) => boolean, ...rules: Rule[]): Rule =>
  (definition, report) => {
    if (condition(definition)) applyAll(rules, definition, report)
  }
const whenSet = (key: string, ...rules: Rule[]): Rule => onlyIf(it => isSet(member(it, key)), ...rules)
const whenTruthy = (key: string, ...rules: Rule[]): Rule => onlyIf(it => isTruthy(member(it, key)), ...rules)
const may = (key: string, test: Test, message: string): Rule => whenSet(key, must(key, test, message))
/** The rules after the first only apply when it holds. */
const mustThen =
  (key: string, test: Test, message: string, ...rules: Rule[]): Rule =>
  (definition, report) => {
    if (test(member(definition, key))) applyAll(rules, definition, report)
    else report(message)
  }
/** Rules for the members of a hash; broken ones concern the outer definition. */
const within =
  (key: string, ...rules: Rule[]): Rule =>
  (definition, report) => {
    const inner = member(definition, key)
    if (isObject(inner)) applyAll(rules, inner, report)
  }
/** The same, but broken rules concern the hash itself. */
const itself =
  (key: string, ...rules: Rule[]): Rule =>
  (definition, report) => {
    const inner = member(definition, key)
    if (isObject(inner)) applyAll(rules, inner, message => report(message, inner))
  }
const mustBeHash = (key: string, message: string, ...rules: Rule[]): Rule =>
  mustThen(key, isHash, message, within(key, ...rules))
const mayBeHash = (key: string, message: string, ...rules: Rule[]): Rule =>
  whenSet(key, mustBeHash(key, message, ...rules))
const mustBeList = (key: string, test: Test, message: string, itemMessage: string): Rule =>
  mustThen(key, isArray, message, must(key, itemsAre(test), itemMessage))
const mayBeList = (key: string, test: Test, message: string, itemMessage: string): Rule =>
  whenSet(key, mustBeList(key, test, message, itemMessage))

function applyAll(rules: readonly Rule[], definition: JsonObject, report: Report): void {
  for (const rule of rules) rule(definition, report)
}

/** `handler` and `handlers`, wherever they occur. */
const handlerRules = (prefix: string): Rule[] => [
  may('handler', isString, `${prefix} handler must be a string`),
  mayBeList(
    'handlers',
    isFilledString,
    `${prefix} handlers must be an array`,
    `${prefix} handlers must each be a string`,
  ),
]

/** Windows of time: a check's `subdue`, a filter's `when`. */
const timeWindowRules = (key: string, prefix: string): Rule =>
  whenTruthy(
    key,
    mustBeHash(key, `${prefix} must be a hash`, mustBeHash('days', `${prefix} days must be a hash`, daysOf(prefix))),
  )

const daysOf =
  (prefix: string): Rule =>
  (days, report) => {
    const names = keysOf(days)
    if (names.length === 0) return report(`${prefix} days must include at least one day of the week or 'all'`)
    if (!names.every(day => windowDays.includes(day))) {
      return report(`${prefix} days must be valid days of the week or 'all'`)
    }
    for (const [day, windows] of entriesOf(days)) {
      if (!Array.isArray(windows)) report(`${prefix} days ${day} must be in an array`)
      else if (windows.length === 0) report(`${prefix} days ${day} must include at least one time window`)
      else for (const window of windows) checkTimeWindow(window, prefix, report)
    }
  }

function checkTimeWindow(window: Json, prefix: string, report: Report): void {
  if (!isObject(window)) {
    report(`${prefix} day time window must be a hash`)
  } else if (!parseClockTime(member(window, 'begin')) || !parseClockTime(member(window, 'end'))) {
    report(`${prefix} day time window begin and end times must be valid`)
  }
}

// Rules of checks that results and keepalives have to obey as well.
const nameRules: Rule[] = [
  must('name', isString, 'check name must be a string'),
  must('name', isName, 'check name cannot contain spaces or special characters'),
]
const sourceRules: Rule[] = [
  whenTruthy(
    'source',
    mustThen(
      'source',
      isString,
      'check source must be a string',
      must('source', isSource, 'check source cannot contain spaces, special characters, or invalid tokens'),
    ),
  ),
]
const ttlRules: Rule[] = [
  whenTruthy(
    'ttl',
    mustThen(
      'ttl',
      isInteger,
      'check ttl must be an integer',
      must('ttl', isPositive, 'check ttl must be greater than 0'),
    ),
    may('ttl_status', isInteger, 'check ttl_status must be an integer'),
  ),
]
const aggregateRules: Rule[] = [
  whenTruthy(
    'aggregates',
    mustBeList(
      'aggregates',
      isAggregateName,
      'check aggregates must be an array',
      'check aggregates items must be strings without spaces or special characters',
    ),
  ),
  whenTruthy('aggregate', (check, report) => {
    const aggregate = member(check, 'aggregate')
    if (isString(aggregate) && !isAggregateName(aggregate)) {
      report('check aggregate cannot contain spaces or special characters')
    } else if (!isString(aggregate) && !isBoolean(aggregate)) {
      report('check aggregate must be a string (name) or boolean')
    }
  }),
]
const flapRules: Rule[] = [
  onlyIf(
    check => isSet(member(check, 'low_flap_threshold')) || isSet(member(check, 'high_flap_threshold')),
    must('low_flap_threshold', isInteger, 'check low flap threshold must be an integer'),
    must('high_flap_threshold', isInteger, 'check high flap threshold must be an integer'),
  ),
]
const truncateRules: Rule[] = [
  may('truncate_output', isBoolean, 'check truncate_output must be boolean'),
  whenTruthy(
    'truncate_output_length',
    must('truncate_output_length', isPositiveInteger, 'check truncate_output_length must be an integer greater than 0'),
  ),
]

const isPublished = (check: JsonObject): boolean => member(check, 'publish') !== false
const hasCron = (check: JsonObject): boolean => isTruthy(member(check, 'cron'))

const hookRules: Rule = (hooks, report) => {
  for (const [key, hook] of entriesOf(hooks)) {
    if (!isHookKey(key)) report("check hook key must be a severity, status, or 'non-zero'")
    applyAll(hookMemberRules, isObject(hook) ? hook : {}, report)
  }
}
const hookMemberRules: Rule[] = [
  must('command', isText, 'check hook command must be a string'),
  may('timeout', isNumeric, 'check hook timeout must be numeric'),
  may('stdin', isBoolean, 'check hook stdin must be boolean'),
]

const checkRules: Rule[] = [
  ...nameRules,
  may('command', isText, 'check command must be a string'),
  may('extension', isString, 'check extension must be a string'),
  (check, report) => {
    if (isSet(member(check, 'command')) === isSet(member(check, 'extension'))) {
      report('either check command or extension must be set')
    }
  },
  may('timeout', isNumeric, 'check timeout must be numeric'),
  may('stdin', isBoolean, 'check stdin must be boolean'),
  ...sourceRules,
  may('publish', isBoolean, 'check publish must be boolean'),
  onlyIf(
    check => isPublished(check) && hasCron(check),
    must('cron', isString, 'check cron must be a string'),
    must('cron', isCron, 'check cron string must use the cron syntax'),
  ),
  onlyIf(
    check => isPublished(check) && !hasCron(check),
    must('interval', isPositiveInteger, 'check interval must be an integer greater than 0'),
  ),
  may('standalone', isBoolean, 'check standalone must be boolean'),
  onlyIf(
    check => !isTruthy(member(check, 'standalone')),
    mustBeList(
      'subscribers',
      isFilledString,
      'check subscribers must be an array',
      'check subscribers must each be a string',
    ),
  ),
  whenTruthy(
    'proxy_requests',
    mustBeHash(
      'proxy_requests',
      'check proxy_requests must be a hash',
      must('client_attributes', isHash, 'check proxy_requests client_attributes must be a hash'),
      may('splay', isBoolean, 'check proxy_requests splay must be boolean'),
      whenTruthy(
        'splay_coverage',
        must(
          'splay_coverage',
          value => isInteger(value) && value > 0 && value < 100,
          'check proxy_requests splay_coverage must be an integer greater than 0 and less than 100',
        ),
      ),
    ),
  ),
  ...handlerRules('check'),
  ...ttlRules,
  ...aggregateRules,
  ...flapRules,
  whenTruthy('hooks', mustBeHash('hooks', 'check hooks must be a hash', hookRules)),
  ...truncateRules,
  timeWindowRules('subdue', 'check subdue'),
]

const resultRules: Rule[] = [
  must('output', isText, 'check output must be a string'),
  must('status', isInteger, 'check status must be an integer'),
  must('executed', isInteger, 'check executed timestamp must be an integer'),
  ...nameRules,
  ...handlerRules('check'),
  ...aggregateRules,
  ...flapRules,
  ...truncateRules,
  ...sourceRules,
  ...ttlRules,
]

const filterRules: Rule[] = [
  may('negate', isBoolean, 'filter negate must be boolean'),
  must('attributes', isHash, 'filter attributes must be a hash'),
  timeWindowRules('when', 'filter when'),
]

const mutatorRules: Rule[] = [
  must('command', isString, 'mutator command must be a string'),
  may('timeout', isNumeric, 'mutator timeout must be numeric'),
]

const hasType =
  (...types: string[]) =>
  (handler: JsonObject) =>
    oneOf(...types)(member(handler, 'type'))

const handlerDefinitionRules: Rule[] = [
  must('type', isString, 'handler type must be a string'),
  onlyIf(hasType('pipe'), must('command', isString, 'handler command must be a string')),
  onlyIf(
    hasType('tcp', 'udp'),
    mustBeHash(
      'socket',
      'handler socket must be a hash',
      must('host', isString, 'handler host must be a string'),
      must('port', isInteger, 'handler port must be an integer'),
    ),
  ),
  onlyIf(
    hasType('transport'),
    mustBeHash(
      'pipe',
      'handler transport pipe must be a hash',
      must('type', isString, 'handler transport pipe type must be a string'),
      must('type', oneOf('direct', 'fanout', 'topic'), 'handler transport pipe type is invalid'),
      must('name', isString, 'handler transport pipe name must be a string'),
      may('options', isHash, 'handler transport pipe options must be a hash'),
    ),
  ),
  onlyIf(
    hasType('set'),
    mustBeList(
      'handlers',
      isFilledString,
      'handler set handlers must be an array',
      'handler set handlers must each be a string',
    ),
  ),
  must('type', oneOf('pipe', 'tcp', 'udp', 'transport', 'set'), 'unknown handler type'),
  mayBeList('filters', isFilledString, 'handler filters must be an array', 'handler filters items must be strings'),
  may('filter', isString, 'handler filter must be a string'),
  mayBeList(
    'severities',
    oneOf('ok', 'warning', 'critical', 'unknown'),
    'handler severities must be an array',
    'handler severities are invalid',
  ),
  may('timeout', isNumeric, 'handler timeout must be numeric'),
  may('mutator', isString, 'handler mutator must be a string'),
  may('handle_flapping', isBoolean, 'handler handle_flapping must be boolean'),
  may('handle_silenced', isBoolean, 'handler handle_silenced must be boolean'),
]

const extensionRules: Rule[] = [
  may('gem', isString, 'extension gem must be a string'),
  may('version', isString, 'extension version must be a string'),
]

const thresholdRules = (prefix: string): Rule =>
  mayBeHash(
    'thresholds',
    `${prefix} thresholds must be a hash`,
    may('warning', isInteger, `${prefix} warning threshold must be an integer`),
    may('critical', isInteger, `${prefix} critical threshold must be an integer`),
  )

const registrationRules = (key: string): Rule =>
  mayBeHash(
    key,
    `client ${key} must be a hash`,
    ...handlerRules(`client ${key}`),
    may('status', isInteger, `client ${key} status must be an integer`),
  )

const clientRules: Rule[] = [
  must('name', isString, 'client name must be a string'),
  must('name', isName, 'client name cannot contain spaces or special characters'),
  must('address', isString, 'client address must be a string'),
  may('safe_mode', isBoolean, 'client safe_mode must be boolean'),
  mustBeList(
    'subscriptions',
    isFilledString,
    'client subscriptions must be an array',
    'client subscriptions must each be a non empty string',
  ),
  mayBeHash(
    'socket',
    'client socket must be a hash',
    may('enabled', isBoolean, 'client socket enabled must be a boolean'),
    may('bind', isString, 'client socket bind must be a string'),
    may('port', isInteger, 'client socket port must be an integer'),
  ),
  mayBeHash(
    'http_socket',
    'client http_socket must be a hash',
    may('enabled', isBoolean, 'client http_socket enabled must be boolean'),
    may('bind', isString, 'client http_socket bind must be a string'),
    may('port', isInteger, 'client http_socket port must be an integer'),
    onlyIf(
      socket => isSet(member(socket, 'user')) || isSet(member(socket, 'password')),
      must('user', isString, 'client http_socket user must be a string'),
      must('password', isString, 'client http_socket password must be a string'),
    ),
    may('protect_all_endpoints', isBoolean, 'client http_socket protect_all_endpoints must be boolean'),
  ),
  may('keepalives', isBoolean, 'client keepalives must be boolean'),
  mayBeHash(
    'keepalive',
    'client keepalive must be a hash',
    ...handlerRules('client keepalive'),
    thresholdRules('client keepalive'),
  ),
  itself('keepalive', ...sourceRules, ...aggregateRules, ...flapRules),
  mayBeList('redact', isFilledString, 'client redact must be an array', 'client redact keys must each be a string'),
  may('signature', isString, 'client signature must be a string'),
  registrationRules('registration'),
  registrationRules('deregistration'),
]

const sensuRules: Rule[] = [
  mustBeHash(
    'spawn',
    'sensu spawn must be a hash',
    mustThen(
      'limit',
      isInteger,
      'sensu spawn limit must be an integer',
      must('limit', isPositive, 'sensu spawn limit must be greater than 0'),
    ),
  ),
  mustBeHash(
    'keepalives',
    'sensu keepalives must be a hash',
    thresholdRules('sensu keepalives'),
    ...handlerRules('sensu keepalives'),
  ),
  whenTruthy(
    'server',
    mustBeHash(
      'server',
      'sensu server must be a hash',
      may('results_pipe', isString, 'sensu server results_pipe must be a string'),
      may('keepalives_pipe', isString, 'sensu server keepalives_pipe must be a string'),
      may('max_message_size', isInteger, 'sensu server max_message_size must be an integer'),
    ),
  ),
  may('global_error_handler', isBoolean, 'sensu global_error_handler must be boolean'),
]

const transportRules: Rule[] = [
  must('name', isString, 'transport name must be a string'),
  may('reconnect_on_error', isBoolean, 'transport reconnect_on_error must be boolean'),
]

const apiEndpointRules: Rule[] = [
  whenSet('url', must('url', isString, 'api endpoint url must be a string')),
  onlyIf(
    endpoint => !isSet(member(endpoint, 'url')),
    must('host', isString, 'api endpoint host must be a string'),
    must('port', isInteger, 'api endpoint port must be an integer'),
    may('ssl', isBoolean, 'api endpoint ssl must be a boolean'),
  ),
]

const apiRules: Rule[] = [
  may('port', isInteger, 'api port must be an integer'),
  may('bind', isString, 'api bind must be a string'),
  onlyIf(
    api => isSet(member(api, 'user')) || isSet(member(api, 'password')),
    must('user', isString, 'api user must be a string'),
    must('password', isString, 'api password must be a string'),
  ),
  whenSet('endpoints', must('endpoints', isArray, 'api endpoints must be an array'), (api, report) => {
    const endpoints = member(api, 'endpoints')
    for (const endpoint of Array.isArray(endpoints) ? endpoints : []) {
      if (isObject(endpoint)) applyAll(apiEndpointRules, endpoint, report)
      else report('api endpoint must be a hash')
    }
  }),
]

const tessenRules: Rule[] = [
  may('enabled', isBoolean, 'tessen enabled must be a boolean'),
  may('identity_key', isString, 'tessen identity_key must be a string'),
]

const categories: readonly { category: Category; singular: string; rules: readonly Rule[] }[] = [
  { category: 'checks', singular: 'check', rules: checkRules },
  { category: 'filters', singular: 'filter', rules: filterRules },
  { category: 'mutators', singular: 'mutator', rules: mutatorRules },
  { category: 'handlers', singular: 'handler', rules: handlerDefinitionRules },
  { category: 'extensions', singular: 'extension', rules: extensionRules },
]

/**
 * Every rule of Sensu 1.9 that the settings break, in its order: sensu, transport, the categories, then what only this
 * service uses. Attributes without a rule are allowed.
 */
export function validateSettings(settings: JsonObject, service: Service): Violation[] {
  const violations: Violation[] = []
  const section = (name: string, rules: readonly Rule[]) =>
    violations.push(...validateHash(member(settings, name) ?? null, name, rules))
  section('sensu', sensuRules)
  section('transport', transportRules)
  for (const { category, singular, rules } of categories) {
    const members = member(settings, category) ?? null
    violations.push(...validateHash(members, category, []))
    for (const [name, definition] of isObject(members) ? entriesOf(members) : []) {
      violations.push(...validateHash(named(definition, name), singular, rules))
    }
  }
  if (service === 'client') section('client', clientRules)
  if (service === 'api') violations.push(...validateApi(settings))
  if (service === 'server' && isSet(member(settings, 'tessen'))) section('tessen', tessenRules)
  return violations
}

/** The rules that the settings of the HTTP API break, for a server that has it inside. */
export function validateApi(settings: JsonObject): Violation[] {
  const api = member(settings, 'api')
  return isSet(api) ? validateHash(api ?? null, 'api', apiRules) : []
}

/** The rules a client definition breaks (also of a client that is created by the API). */
export function validateClient(client: Json): Violation[] {
  return validateHash(client, 'client', clientRules)
}

/** All rules a check result from outside breaks, in Sensu's order. */
export function resultFailures(check: JsonObject): string[] {
  const messages: string[] = []
  applyAll(resultRules, check, message => messages.push(message))
  return messages
}

/** The first rule a check result from outside breaks, which is the one that is reported; undefined when it is valid. */
export function validateResult(check: JsonObject): string | undefined {
  return resultFailures(check)[0]
}

function validateHash(value: Json, name: string, rules: readonly Rule[]): Violation[] {
  if (!isObject(value)) return [{ object: value, message: `${name} must be a hash` }]
  const violations: Violation[] = []
  applyAll(rules, value, (message, object = value) => violations.push({ object, message }))
  return violations
}

function named(definition: Json, name: string): Json {
  return isObject(definition) ? { ...definition, name } : definition
}
