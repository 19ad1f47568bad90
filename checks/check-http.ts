import { readFile } from 'node:fs/promises'
import { type Context, defineLocalCheck } from '../plugin/check.js'
import { exchangeHttp, type HttpRequest, type HttpResponse, HttpTimeoutError } from '../plugin/http-exchange.js'
import { lookUp } from '../plugin/name-lookup.js'
import type { OptionTable, OptionValues } from '../plugin/options.js'
import { type Finding, Verdict } from '../plugin/outcome.js'
import { pluginLine, rubyPattern } from '../plugin/ruby.js'
import type { Status } from '../plugin/status.js'

const options = {
  userAgent: { type: 'string', alias: 'x', default: 'Sensu-HTTP-Check', summary: 'The User-Agent to send.' },
  url: { type: 'string', alias: 'u', summary: 'What to ask for; instead of --hostname, --port, --request-uri and -s.' },
  hostname: { type: 'string', alias: 'h', summary: 'The host to ask.' },
  port: { type: 'integer', alias: 'P', minimum: 1, maximum: 65_535, summary: 'Its port (default: 80, with -s 443).' },
  requestUri: { type: 'string', alias: 'p', summary: 'The path to ask for.' },
  method: {
    type: 'choice',
    alias: 'm',
    choices: ['GET', 'HEAD', 'POST', 'PUT'],
    default: 'GET',
    summary: 'How to ask.',
  },
  header: { type: 'string', alias: 'H', summary: 'Headers to send, joined by commas: "Name: value, Other: value".' },
  headerfile: { type: 'string', summary: 'A file with headers to send, one a line.' },
  body: { type: 'string', alias: 'd', summary: 'A body to send.' },
  ssl: { type: 'flag', alias: 's', summary: 'Use TLS.' },
  insecure: { type: 'flag', alias: 'k', summary: "Do not verify the server's certificate." },
  username: { type: 'string', alias: 'U', summary: 'User for basic authentication.' },
  password: { type: 'string', alias: 'a', summary: 'Password for basic authentication.' },
  cert: { type: 'string', alias: 'c', summary: 'A PEM file with a client certificate and its key.' },
  cacert: {
    type: 'string',
    alias: 'C',
    summary: 'A PEM file with the authorities to trust, instead of those of the system.',
  },
  expiry: { type: 'integer', alias: 'e', summary: 'Warn when a certificate ends within so many days.' },
  query: { type: 'string', alias: 'q', summary: 'A regular expression that the body must match.' },
  negquery: { type: 'string', alias: 'n', summary: 'A regular expression that the body must not match.' },
  checksum: { type: 'string', alias: 'S', summary: 'The SHA-256 sum that the body must have.' },
  timeout: {
    type: 'number',
    alias: 't',
    default: 15,
    minimum: 0,
    summary: 'Critical when all takes longer (s; 0: no limit of its own).',
  },
  openTimeout: { type: 'number', default: 15, minimum: 0, summary: 'Critical when connecting takes longer (s).' },
  readTimeout: {
    type: 'number',
    default: 15,
    minimum: 0,
    summary: 'Critical when the server is silent for longer (s).',
  },
  dnsTimeout: { type: 'number', default: 0.8, minimum: 0, summary: 'How long a name server has to answer (s).' },
  redirectok: { type: 'flag', alias: 'r', summary: 'A redirect is OK.' },
  redirectTo: { type: 'string', alias: 'R', summary: 'A redirect to just this place is OK, anything else is not.' },
  wholeResponse: { type: 'flag', alias: 'w', summary: 'Print the body below the line.' },
  responseBytes: {
    type: 'integer',
    alias: 'b',
    minimum: 0,
    summary: 'Print so many bytes of the body, and one more, below the line.',
  },
  requireBytes: { type: 'integer', alias: 'B', summary: 'Critical when the body has another size.' },
  minBytes: { type: 'integer', alias: 'g', summary: 'Critical when the body is smaller.' },
  responseCode: { type: 'string', summary: 'A regular expression that the code must match.' },
  proxyUrl: { type: 'string', summary: 'The proxy to use (default: $http_proxy, unless $no_proxy names the host).' },
  noproxy: { type: 'flag', summary: 'Use no proxy.' },
} as const satisfies OptionTable

type Options = OptionValues<typeof options>

/** What came of the request: an answer and how long it took, or why there is none. */
export type HttpSample =
  | { readonly response: HttpResponse; readonly seconds: number; readonly atMs: number }
  | { readonly failure: string }

export default defineLocalCheck({
  name: 'check-http',
  summary: 'Whether a web server answers, and as it should.',
  description: `Redirects are not followed. A name is looked up in \`/etc/hosts\` and then asked of the name servers, with the search domains of \`/etc/resolv.conf\`. Without \`--cacert\` the
system's authorities are trusted (\`$SSL_CERT_FILE\`, or the bundle of the distribution).

A certificate that ends soon is a WARNING, but hides nothing that is CRITICAL, as it does in the Ruby plugin. The body is asked for without compression. Only its first 16 MiB are looked through;
size and checksum are those of all. It is printed with control characters replaced. A request is never sent twice. Requests cannot be signed for AWS (\`--aws-v4\`).`,
  sample: '--url http://localhost/',
  options,
  rubyLine: pluginLine('CheckHttp'),
  takesSeconds: ({ timeout }) => timeout,
  async collect(values, context): Promise<HttpSample> {
    const target = targetOf(values)
    // What is wrong with the options is not the server's fault.
    patternsOf(values)
    const proxy = proxyOf(values, target, context)
    const request = await requestOf(target, values, context)
    context.stage(`asking ${target.host}:${target.port}`)
    return await answerTo(request, proxy, values, context)
  },
  evaluate(sample, values) {
    const verdict = new Verdict()
    const finding: Finding =
      'failure' in sample
        ? { status: 'CRITICAL', message: sample.failure }
        : judge(sample.response, sample.atMs, values)
    if ('response' in sample) {
      verdict.measure({ name: 'response_time', value: sample.seconds, unit: 's', min: 0 })
      verdict.measure({ name: 'response_size', value: sample.response.size, unit: 'B', min: 0 })
    }
    verdict.summary = finding.message
    return verdict.add(finding)
  },
})

interface Target {
  readonly host: string
  readonly port: number
  readonly path: string
  readonly tls: boolean
}

/** Throws when the options name nothing to ask for. */
function targetOf({ url, hostname, port, requestUri, ssl }: Options): Target {
  if (url === undefined) {
    if (hostname === undefined || requestUri === undefined) throw new Error('No URL specified')
    return { host: hostname, port: port ?? (ssl ? 443 : 80), path: requestUri, tls: ssl }
  }
  const parsed = parseUrl('--url', url, ['http:', 'https:'])
  const tls = parsed.protocol === 'https:'
  const path = `${parsed.pathname}${parsed.search}`
  return { host: bareHost(parsed), port: Number(parsed.port) || (tls ? 443 : 80), path, tls }
}

function parseUrl(option: string, text: string, protocols: readonly string[]): URL {
  const parsed = URL.canParse(text) ? new URL(text) : undefined
  if (parsed === undefined || !protocols.includes(parsed.protocol) || parsed.hostname === '') {
    throw new Error(
      `${option} ${text}: not a URL: write ${protocols.map(protocol => `${protocol}//HOST/`).join(' or ')}`,
    )
  }
  return parsed
}

/** An IPv6 address is in brackets there. */
function bareHost({ hostname }: URL): string {
  return hostname.replace(/^\[(.*)\]$/, '$1')
}

async function requestOf(target: Target, values: Options, context: Context): Promise<Prepared> {
  const headers = [
    ...(values.header?.split(',') ?? []).map(line => headerOf('--header', line)),
    ...(values.headerfile === undefined ? [] : await headersIn(values.headerfile)),
  ]
  const { username = '', password = '', body } = values
  const hasUser = values.username !== undefined || values.password !== undefined
  return {
    ...target,
    method: values.method,
    headers: {
      'User-Agent': values.userAgent,
      'Accept-Encoding': 'identity',
      ...(body === undefined ? {} : { 'Content-Type': 'application/x-www-form-urlencoded' }),
      ...(hasUser ? { Authorization: basic(username, password) } : {}),
      ...Object.fromEntries(headers),
    },
    body,
    tls: target.tls ? await certificatesOf(values, context) : undefined,
    openTimeoutMs: milliseconds(values.openTimeout),
    readTimeoutMs: milliseconds(values.readTimeout),
  }
}

/** What a timer can hold. */
const longestTimerMs = 2 ** 31 - 1

/** 0 is no limit, as far as a timer goes. */
function milliseconds(seconds: number): number {
  return Math.min(seconds * 1000 || longestTimerMs, longestTimerMs)
}

function basic(user: string, password: string): string {
  return `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`
}

async function headersIn(file: string): Promise<[name: string, value: string][]> {
  const lines = (await readFile(file, 'utf8')).split('\n').filter(line => line.trim() !== '')
  return lines.map(line => headerOf(`--headerfile ${file}`, line))
}

const canonicalNames = [
  'User-Agent',
  'Accept-Encoding',
  'Content-Type',
  'Authorization',
  'Host',
  'Accept',
  'Connection',
]

/** Named as our own headers are, so that it takes the place of one. */
function headerOf(option: string, line: string): [name: string, value: string] {
  const [, name = '', value = ''] = /^([^:]+):(.*)$/s.exec(line.trim()) ?? []
  if (!/^[\w!#$%&'*+.^`|~-]+$/.test(name.trim()))
    throw new Error(`${option}: "${line}" is no header: write Name: value`)
  const canonical = canonicalNames.find(known => known.toLowerCase() === name.trim().toLowerCase())
  return [canonical ?? name.trim(), value.trim()]
}

/** Where distributions keep the authorities that the system trusts. */
const systemBundles = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
]

async function certificatesOf({ cert, cacert, insecure }: Options, { path, variables }: Context) {
  const own = cert === undefined ? undefined : await readFile(cert)
  const authorities = cacert ?? variables['SSL_CERT_FILE']
  const ca = authorities === undefined ? await firstFile(systemBundles.map(path)) : await readFile(authorities)
  return { rejectUnauthorized: !insecure, ...(ca && { ca }), ...(own && { cert: own, key: own }) }
}

async function firstFile(paths: readonly string[]): Promise<Buffer | undefined> {
  for (const path of paths) {
    const content = await readFile(path).catch(() => undefined)
    if (content !== undefined) return content
  }
  return undefined
}

interface Proxy {
  readonly host: string
  readonly port: number
  readonly authorization: string | undefined
  /** Not asked for by an option: a host of this machine is asked directly. */
  readonly fromEnvironment: boolean
}

/** Throws when the proxy's URL is none. */
function proxyOf({ proxyUrl, noproxy }: Options, { host, port }: Target, { variables }: Context): Proxy | undefined {
  const fromEnvironment = proxyUrl === undefined
  const text = proxyUrl ?? (variables['http_proxy'] || variables['HTTP_PROXY'])
  if (noproxy || !text) return undefined
  if (fromEnvironment && isExcepted(host, port, variables['no_proxy'] || variables['NO_PROXY'] || '')) return undefined
  const url = parseUrl('--proxy-url', text, ['http:'])
  const [user, password] = [url.username, url.password].map(decodeURIComponent)
  const authorization = user && password ? basic(user, password) : undefined
  return { host: bareHost(url), port: Number(url.port) || 80, authorization, fromEnvironment }
}

/** `.example.com` and `example.com` both name that host and all below; a port after a colon narrows it. */
function isExcepted(host: string, port: number, exceptions: string): boolean {
  return exceptions
    .split(/[\s,]+/)
    .filter(Boolean)
    .some(exception => {
      const [name = '', onlyPort] = exception.toLowerCase().split(':')
      const domain = name.replace(/^\*?\.?/, '.')
      return `.${host.toLowerCase()}`.endsWith(domain) && (onlyPort === undefined || Number(onlyPort) === port)
    })
}

type Prepared = Omit<HttpRequest, 'address' | 'proxy' | 'signal'>

/** Rejects only when the run is stopped: whatever the server, or the way to it, is to blame for is the sample. */
async function answerTo(
  request: Prepared,
  proxy: Proxy | undefined,
  values: Options,
  context: Context,
): Promise<HttpSample> {
  const limit = new AbortController()
  const end = () => limit.abort()
  const timer = values.timeout > 0 ? setTimeout(end, milliseconds(values.timeout)) : undefined
  context.signal.addEventListener('abort', end, { once: true })
  const limited = new Promise<never>((_, reject) => {
    limit.signal.addEventListener('abort', () => reject(new Error('Request timed out')), { once: true })
  })
  const startedMs = performance.now()
  try {
    const response = await Promise.race([ask(request, proxy, values, context, limit.signal), limited])
    return { response, seconds: (performance.now() - startedMs) / 1000, atMs: context.now() }
  } catch (error) {
    if (limit.signal.aborted) return { failure: 'Request timed out' }
    if (error instanceof HttpTimeoutError) return { failure: `Request timed out ${error.phase}` }
    return { failure: `Request error: ${error instanceof Error ? error.message : String(error)}` }
  } finally {
    clearTimeout(timer)
    context.signal.removeEventListener('abort', end)
  }
}

/** Asks the server, or the proxy. */
async function ask(
  request: Prepared,
  proxy: Proxy | undefined,
  { dnsTimeout }: Options,
  { path }: Context,
  signal: AbortSignal,
) {
  const resolve = (host: string) => lookUp(host, { timeoutSeconds: dnsTimeout, path })
  const isLocal = async () => /^(?:127\.|::1$)/.test((await resolve(request.host)) ?? '')
  const via = proxy?.fromEnvironment && (await isLocal()) ? undefined : proxy
  const { host, port } = via ?? request
  const address = await resolve(host)
  const failed = (reason: string) => new Error(`Failed to open TCP connection to ${host}:${port} (${reason})`)
  if (address === undefined) throw failed(`Hostname not known: ${host}`)
  try {
    return await exchangeHttp({ ...request, address, proxy: via, signal })
  } catch (error) {
    const reason = connectFailures.get(error instanceof Error && 'code' in error ? error.code : undefined)
    throw reason === undefined ? error : failed(`${reason} - connect(2) for "${address}" port ${port}`)
  }
}

const connectFailures: ReadonlyMap<unknown, string> = new Map([
  ['ECONNREFUSED', 'Connection refused'],
  ['EHOSTUNREACH', 'No route to host'],
  ['ENETUNREACH', 'Network is unreachable'],
  ['ETIMEDOUT', 'Connection timed out'],
])

function patternsOf({ query, negquery, responseCode }: Options) {
  const read = (text: string | undefined, option: string) =>
    text === undefined ? undefined : rubyPattern(text, option)
  return {
    query: read(query, '--query'),
    negquery: read(negquery, '--negquery'),
    responseCode: read(responseCode, '--response-code'),
  }
}

/** Judges an answer in the order of the Ruby plugin, but for a certificate that ends soon, which comes last. */
function judge(response: HttpResponse, atMs: number, values: Options): Finding {
  const finding = judgeSize(response, values) ?? judgeCode(response, values)
  const { expiry } = values
  if (expiry === undefined || finding.status === 'CRITICAL') return finding
  const end = response.certificatesEnd.find(date => date.getTime() <= atMs + expiry * 86_400_000)
  return end === undefined ? finding : { status: 'WARNING', message: `Certificate will expire ${rubyTime(end)}` }
}

/** A Time as Ruby prints it. */
function rubyTime(date: Date): string {
  return date.toISOString().replace(/T(.{8}).*/, ' $1 UTC')
}

function judgeSize(response: HttpResponse, values: Options): Finding | undefined {
  const { requireBytes, minBytes } = values
  const { size } = response
  const tooBad = (text: string): Finding => ({
    status: 'CRITICAL',
    message: `Response was ${size} bytes instead of ${text}${printedBody(response, values)}`,
  })
  if (requireBytes !== undefined && size !== requireBytes) return tooBad(String(requireBytes))
  if (minBytes !== undefined && size < minBytes) return tooBad(`the indicated minimum ${minBytes}`)
  return undefined
}

function judgeCode(response: HttpResponse, values: Options): Finding {
  const { code, size, location } = response
  const body = printedBody(response, values)
  const { redirectok, redirectTo } = values
  const conclude = (status: Status, text: string): Finding => ({ status, message: `${text}${body}` })
  if (code.startsWith('2') && redirectTo !== undefined) {
    return conclude('CRITICAL', `Expected redirect to ${redirectTo} but got ${code}`)
  }
  const ofContent = code.startsWith('2') ? judgeContent(response, values) : undefined
  if (ofContent !== undefined) return ofContent
  if (code.startsWith('3') && !redirectok) {
    if (redirectTo === undefined) return conclude('WARNING', code)
    return redirectTo === location
      ? conclude('OK', `${code} found redirect to ${location}`)
      : conclude('CRITICAL', `Expected redirect to ${redirectTo} instead redirected to ${location ?? ''}`)
  }
  const { responseCode } = patternsOf(values)
  if (responseCode !== undefined) {
    return responseCode.test(code) ? conclude('OK', `${code}, ${size} bytes`) : conclude('CRITICAL', code)
  }
  if (/^[23]/.test(code)) return conclude('OK', `${code}, ${size} bytes`)
  return conclude(/^[45]/.test(code) ? 'CRITICAL' : 'WARNING', code)
}

/** What the body is to be, if the options say so: the first of pattern, absent pattern and checksum. */
function judgeContent(response: HttpResponse, values: Options): Finding | undefined {
  const { code, size, sha256 } = response
  const text = response.body.toString()
  const { query, negquery } = patternsOf(values)
  const conclude = (isGood: boolean, found: string): Finding =>
    isGood
      ? { status: 'OK', message: `${code}, ${found} in ${size} bytes${printedBody(response, values)}` }
      : { status: 'CRITICAL', message: `${code}, ${found} in ${size} bytes: ${response.body.subarray(0, 200)}...` }
  const words = (found: boolean, pattern: string | undefined) => `${found ? 'found' : 'did not find'} /${pattern}/`
  if (query !== undefined) {
    const found = query.test(text)
    return conclude(found, words(found, values.query))
  }
  if (negquery !== undefined) {
    const found = negquery.test(text)
    return conclude(!found, words(found, values.negquery))
  }
  if (values.checksum === undefined) return undefined
  const matches = sha256 === values.checksum
  return conclude(matches, `checksum ${matches ? 'match' : 'did not match'} ${values.checksum}`)
}

/** The body below the line, as far as it is asked for. */
function printedBody({ body }: HttpResponse, { wholeResponse, responseBytes }: Options): string {
  if (wholeResponse) return `\n${body}`
  return responseBytes === undefined ? '' : `\n${body.subarray(0, responseBytes + 1)}`
}
