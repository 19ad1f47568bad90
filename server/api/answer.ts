import { stringifyJson } from '../../sensu/json.js'
import { epochSeconds } from '../../sensu/results.js'
import type { Json } from '../../sensu/types.js'

/** What a request is answered with. */
export interface Answer {
  status: number
  /** Text, or pieces of a text that need not all exist at the same time. Absent: an empty body. */
  body?: string | AsyncIterable<string>
  /** Default: JSON. */
  contentType?: string
  /** Besides those that every answer has. */
  headers?: Readonly<Record<string, string>>
}

/** 200 with a value as JSON. */
export function ok(value: Json): Answer {
  return okText(stringifyJson(value))
}

/** 200 with a text that is JSON already, for instance because Redis has it so. */
export function okText(text: string): Answer {
  return { status: 200, body: text }
}

/** 201, with a value as JSON when there is one. */
export function created(value?: Json): Answer {
  return { status: 201, ...(value !== undefined && { body: stringifyJson(value) }) }
}

/** 202: it will be done; `issued` is now. */
export function accepted(): Answer {
  return { status: 202, body: stringifyJson({ issued: epochSeconds(Date.now()) }) }
}

export const noContent: Answer = { status: 204 }
export const badRequest: Answer = { status: 400 }
export const notFound: Answer = { status: 404 }

/** The JSON text of a value that is there, otherwise 404. */
export function found(text: string | undefined): Answer {
  return text === undefined ? notFound : okText(text)
}
