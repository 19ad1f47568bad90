import { parseJson } from '../sensu/json.js'
import { isObject } from '../sensu/json-value.js'
import type { Logger } from '../sensu/log.js'
import type { Json } from '../sensu/types.js'
import type { Executions } from './executions.js'

/** As much of a broken message as a log line shows. */
const EXCERPT_CHARACTERS = 256
/** A broken message cannot be redacted by its structure, so everything that looks like a secret is. */
const SECRET = /("[^"]*(?:pass|secret|token|_key|community|webhook)[^"]*"\s*:\s*)("(?:[^"\\]|\\.)*"?|[^,}\]\s]+)/gi

/** Reads check requests from the broker. Broken ones are logged and dropped, whatever they are. */
export class Requests {
  readonly #executions: Executions
  readonly #log: Logger

  constructor(executions: Executions, log: Logger) {
    this.#executions = executions
    this.#log = log
  }

  /** Takes one message body; never throws. */
  receive(message: Buffer): void {
    try {
      const request = parseJson(message)
      const fault = faultOf(request)
      if (fault === undefined && isObject(request)) {
        this.#log.info('received check request', { check: request })
        this.#executions.process(request)
      } else {
        this.#log.error('dropping an invalid check request', { error: fault, payload: excerpt(message) })
      }
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      this.#log.error('failed to parse the check request payload', { error: reason, payload: excerpt(message) })
    }
  }
}

/** Sensu executes whatever has a name, even an empty one; without one there is nothing to report a result for. */
function faultOf(request: Json): string | undefined {
  if (!isObject(request)) return 'check request must be a hash'
  if (typeof request['name'] !== 'string') return 'check name must be a string'
  return undefined
}

function excerpt(message: Buffer): string {
  const text = message.toString('utf8', 0, 4 * EXCERPT_CHARACTERS)
  const head = text.slice(0, EXCERPT_CHARACTERS).replace(SECRET, '$1"REDACTED"')
  return text.length > EXCERPT_CHARACTERS ? `${head}… (${message.length} bytes)` : head
}
