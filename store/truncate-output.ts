import { isTruthy } from '../sensu/json-value.js'
import type { JsonObject } from '../sensu/types.js'

/**
 * The output as it is stored with the result, undefined when that is the whole one; handlers and events get the whole one. Applies to checks with `truncate_output`, and to metric
 * checks unless it is false: the first line, at most `truncate_output_length` (255) characters and one more, and `\n...` when
 * something was cut. One character more than the length says is what Sensu 1.9 keeps; what people see in its dashboards stays the same.
 */
export function storedOutput(check: JsonObject): string | undefined {
  const { truncate_output: wanted, type } = check
  const output = Buffer.isBuffer(check['output']) ? check['output'].toString() : check['output']
  const truncates = type === 'metric' ? wanted !== false : isTruthy(wanted)
  if (!truncates || typeof output !== 'string') return undefined
  const given = check['truncate_output_length']
  const length = typeof given === 'number' && given > 0 ? Math.trunc(given) : 255
  const end = output.indexOf('\n')
  const blank = /^\n*$/.test(output)
  if (end === -1 || blank) return cut(output, length, false)
  const several = /[^\n]/.test(output.slice(end))
  return cut(output.slice(0, end), length, several)
}

function cut(line: string, length: number, several: boolean): string {
  // Characters are code points; a line of fewer UTF-16 units than the limit needs no counting.
  if (!several && line.length <= length) return line
  const characters = Array.from(line.slice(0, 2 * (length + 1)))
  if (!several && characters.length <= length) return line
  return `${characters.slice(0, length + 1).join('')}\n...`
}
