import { eventsPrefix, historyPrefix, resultPrefix } from './keys.js'

/**
 * Readers of many clients' events and results: one round trip for a slice of clients instead of one for each of their checks. They write nothing.
 *
 * KEYS: none; ARGV: client names. Each returns an array with one entry for each client, in their order.
 */

/** How many events each client has. */
export const countEventsScript = `
local counts = {}
for index, client in ipairs(ARGV) do
  counts[index] = redis.call('HLEN', '${eventsPrefix}' .. client)
end
return counts
`

/** Each client's events, as JSON texts. */
export const readEventsScript = `
local events = {}
for index, client in ipairs(ARGV) do
  events[index] = redis.call('HVALS', '${eventsPrefix}' .. client)
end
return events
`

/** How many stored results each client has: a name in the set may have lost its result. */
export const countResultsScript = `
local counts = {}
for index, client in ipairs(ARGV) do
  local count = 0
  for _, check in ipairs(redis.call('SMEMBERS', '${resultPrefix}' .. client)) do
    count = count + redis.call('EXISTS', '${resultPrefix}' .. client .. ':' .. check)
  end
  counts[index] = count
end
return counts
`

/** Each client's results: check name, JSON text of the result, statuses of its history separated by commas, and so on. */
export const readResultsScript = `
local results = {}
for index, client in ipairs(ARGV) do
  local found = {}
  for _, check in ipairs(redis.call('SMEMBERS', '${resultPrefix}' .. client)) do
    local name = client .. ':' .. check
    local text = redis.call('GET', '${resultPrefix}' .. name)
    if text then
      found[#found + 1] = check
      found[#found + 1] = text
      found[#found + 1] = table.concat(redis.call('LRANGE', '${historyPrefix}' .. name, -21, -1), ',')
    end
  end
  results[index] = found
end
return results
`

/**
 * Who sends each client's results when somebody else does: for a guest its host. The newest of three such results says it, a guest may have moved. Empty
 * where there is none. It is looked for in the text: parsing takes Redis much longer.
 */
export const readSendersScript = `
local senders = {}
for index, client in ipairs(ARGV) do
  local newest, seen = -1, 0
  senders[index] = ''
  for _, check in ipairs(redis.call('SMEMBERS', '${resultPrefix}' .. client)) do
    local text = redis.call('GET', '${resultPrefix}' .. client .. ':' .. check) or ''
    local origin = string.match(text, '"origin":"([%w_.-]+)"')
    local executed = tonumber(string.match(text, '"executed":(%d+)')) or 0
    if origin and origin ~= client then
      seen = seen + 1
      if executed > newest then
        newest = executed
        senders[index] = origin
      end
    end
    if seen == 3 then break end
  end
end
return senders
`
