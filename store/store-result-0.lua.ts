import {
  aggregatePrefix,
  aggregatesKey,
  answersKey,
  answersOfKey,
  clientKey,
  clientSignatureKey,
  clientsKey,
  eventsKey,
  historyKey,
  lastOkKey,
  resultKey,
  resultsKey,
  silencedKey,
  silencePrefix,
  ttlKey,
} from './keys.js'

/** Version a client has that was created for its results only: the Sensu release whose data model this is. */
const dataModelVersion = '1.9.0'
/** Answers kept for each writer: more than it ever has under way (see StoreLimits.maximumInFlight). */
export const keptAnswers = 1024
/** They are forgotten so long after the writer's last result; its broker knows by then that it has gone. */
const answersLifetimeSeconds = 3600

/** A key as an expression of Lua, in which these variables stand for the client (or writer) and the check. */
function luaKey(spell: (...names: [string, string]) => string, ...variables: string[]): string {
  const parts = spell('{0}', '{1}').split(/\{([01])\}/)
  // every second part is the number of a variable
  return parts
    .flatMap((part, at) => (at % 2 === 1 ? (variables[Number(part)] ?? '') : part === '' ? [] : `'${part}'`))
    .join(' .. ')
}

/**
 * Stores one check result and says what became of it, atomically (Sensu 1.9: the whole way from client lookup to event registry).
 *
 * JSON is never decoded and encoded again here, since that would lose key order, empty arrays and big integers: the event is spliced
 * from texts, and what is decoded is only read. A "template" is a JSON text cut where the script has to fill something in:
 * piece, hole, piece, hole, … piece; holes are named 'command', 'history' and 'total_state_change'.
 *
 * The keys follow from client and check and are not passed, which is half of a call's bytes. (Sensu's layout cannot be spread over a cluster anyway.)
 *
 * ARGV: 1 client, 2 check name, 3 now (Unix seconds), 4 status, 5 executed, 6 id for a new event, 7 writer, 8 number of the call modulo keptAnswers,
 *       9 '1' when this may be a repetition of a call whose answer was lost, by this writer or another one, 10 what is unusual about the
 *       result (JSON, see ScriptOptions in result-script.ts) or '', 11 the check as JSON; or, with options.stored_pieces, from 11 on two
 *       templates: so many texts of the check as it is stored, the rest the check as it goes into the event
 * Returns {'refused', reason, client JSON} or {'stored', registered 0|1, client JSON, action, handle 0|1, event JSON}. Client and event
 *       JSON are '' for a plain OK result of a known client: it has no event.
 */
export const storeResultScript = `
local C, K, now, status, slot = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[8])
local options = ARGV[10] ~= '' and cjson.decode(ARGV[10]) or {}
local store = not options.unstored_client

local function present(value)
  return value ~= nil and value ~= cjson.null
end

local function truthy(value)
  return present(value) and value ~= false
end

local function decode(text)
  local ok, value = pcall(cjson.decode, text)
  if ok and type(value) == 'table' then return value end
end

local function render(first, last, holes)
  local out = {}
  for i = first, last do
    local odd = (i - first) % 2 == 1
    out[#out + 1] = odd and holes[ARGV[i]] or ARGV[i]
  end
  return table.concat(out)
end

-- 0. A result that arrives twice is answered as it was the first time, whoever stored it then.
local digest = store and redis.sha1hex(C .. ' ' .. table.concat(ARGV, '', 11)) or ''
if store and ARGV[9] == '1' then
  for _, writer in ipairs(redis.call('SMEMBERS', '${answersKey}')) do
    local answers = redis.call('HVALS', ${luaKey(answersOfKey, 'writer')})
    if #answers == 0 then redis.call('SREM', '${answersKey}', writer) end
    for _, answer in ipairs(answers) do
      if string.sub(answer, 1, 40) == digest then return cmsgpack.unpack(string.sub(answer, 41)) end
    end
  end
end
local function answer(reply)
  if not store then return reply end
  local key = ${luaKey(answersOfKey, 'ARGV[7]')}
  if redis.call('HSET', key, slot, digest .. cmsgpack.pack(reply)) == 1 or slot % 64 == 0 then
    redis.call('SADD', '${answersKey}', ARGV[7])
    redis.call('EXPIRE', key, ${answersLifetimeSeconds})
  end
  return reply
end

-- 1. The registry: find the client, or create it. An event that is not stored (registration) brings its client along.
local client_key, signature_key = ${luaKey(clientKey, 'C')}, ${luaKey(clientSignatureKey, 'C')}
local signature = present(options.signature) and options.signature or nil
local registered = 0
local client_text = options.unstored_client or redis.call('GET', client_key)
local client
if client_text then
  -- most clients have neither, and need not be decoded
  if string.find(client_text, '"signature"', 1, true) or string.find(client_text, '"proxy"', 1, true) then
    client = decode(client_text)
  elseif string.sub(client_text, 1, 1) ~= '{' then
    return redis.error_reply('ERR the stored client ' .. C .. ' is not a JSON object')
  end
  if store and client and type(client.signature) == 'string' and client.signature ~= '' and client.signature ~= signature then
    return {'refused', 'client', client_text}
  end
else
  local stored_signature = redis.call('GET', signature_key)
  if stored_signature and stored_signature ~= '' and stored_signature ~= signature then
    return {'refused', 'signature', ''}
  end
  -- in Sensu's order of attributes; the name needs no escapes
  client_text = '{"name":"' .. C .. '","address":"unknown","subscriptions":["client:' .. C ..
    '"],"keepalives":false,"version":"' .. '${dataModelVersion}' .. '","timestamp":' .. ARGV[3] ..
    (options.has_source and ',"type":"proxy"}' or '}')
  registered = redis.call('SETNX', signature_key, '')
  redis.call('SET', client_key, client_text)
  redis.call('SADD', '${clientsKey}', C)
end

local holes = { command = options.command }
if present(options.proxy_command) then
  client = client or decode(client_text) or {}
  if client.type == 'proxy' then holes.command = options.proxy_command end
end
local ok = status == '0'

-- 2. Aggregates, result, history, last_ok.
local history_key, last_ok_key, events_key = ${luaKey(historyKey, 'C', 'K')}, ${luaKey(lastOkKey, 'C', 'K')}, ${luaKey(eventsKey, 'C')}
if store then
  for _, aggregate in ipairs(options.aggregates or {}) do
    redis.call('SADD', '${aggregatePrefix}' .. aggregate, C .. ':' .. K)
    redis.call('SADD', '${aggregatesKey}', aggregate)
  end
  redis.call('SADD', ${luaKey(resultsKey, 'C')}, K)
  redis.call('SET', ${luaKey(resultKey, 'C', 'K')},
    options.stored_pieces and render(11, 10 + options.stored_pieces, holes) or ARGV[11])
  if options.ttl then redis.call('SADD', '${ttlKey}', C .. ':' .. K) end
  if redis.call('RPUSH', history_key, status) > 21 then redis.call('LTRIM', history_key, -21, -1) end
  if ok then redis.call('SET', last_ok_key, ARGV[5]) end
end

local stored_text = store and redis.call('HGET', events_key, K)
if store and not stored_text and ok and not options.metric and not present(options.low_flap_threshold) then
  return answer({'stored', registered, registered == 1 and client_text or '', 'create', 0, ''})
end
local stored = stored_text and decode(stored_text)
client = client or decode(client_text) or {}

-- 3. History, total state change (weights 0.80 to 1.20 over 21 entries), flapping.
local history = redis.call('LRANGE', history_key, -21, -1)
local total_state_change = 0
if #history >= 21 then
  local changes, weight = 0, 0.8
  for i = 1, 21 do
    if i > 1 and history[i] ~= history[i - 1] then changes = changes + weight end
    weight = weight + 0.02
  end
  total_state_change = math.floor(changes / 20 * 100)
end
local flapping = false
if present(options.low_flap_threshold) then
  if stored and stored.action == 'flapping' then
    flapping = total_state_change > options.low_flap_threshold
  else
    flapping = total_state_change >= options.high_flap_threshold
  end
end

-- 4. The event: what is carried over from the stored one, and the action.
local function integer(value)
  if type(value) == 'number' then return value end
end
local id, occurrences, watermark, changed = ARGV[6], 1, nil, nil
if stored then
  if type(stored.id) == 'string' then id = stored.id end
  occurrences = integer(stored.occurrences) or 1
  watermark = integer(stored.occurrences_watermark) or occurrences
  changed = integer(stored.last_state_change)
end
watermark = watermark or occurrences
local action = flapping and 'flapping' or 'create'
if not ok or flapping then
  if history[#history] == history[#history - 1] then
    occurrences = occurrences + 1
    watermark = math.max(watermark, occurrences)
  else
    occurrences = 1
    changed = now
  end
elseif stored then
  changed = now
  action = 'resolve'
end

-- 5. Silencing: by each of the client's subscriptions, then by the check.
local silenced_by = {}
local function consider(key)
  local text = redis.call('GET', key)
  local entry = text and decode(text)
  if not entry then return end
  if truthy(entry.expire_on_resolve) and action == 'resolve' then
    redis.call('SREM', '${silencedKey}', key)
    redis.call('DEL', key)
  elseif not present(entry.begin) or (tonumber(entry.begin) or 0) <= now then
    silenced_by[#silenced_by + 1] = cjson.encode(string.sub(key, ${silencePrefix.length + 1}))
  end
end
if not (ok and action == 'create') then
  if type(client.subscriptions) == 'table' then
    for _, subscription in ipairs(client.subscriptions) do
      if type(subscription) == 'string' then
        consider('${silencePrefix}' .. subscription .. ':*')
        consider('${silencePrefix}' .. subscription .. ':' .. K)
      end
    end
  end
  consider('${silencePrefix}' .. '*:' .. K)
end

-- 6. The event's text.
local function number(value)
  return string.format('%.0f', value)
end
local quoted = {}
for i, status in ipairs(history) do quoted[i] = cjson.encode(status) end
holes.history = '[' .. table.concat(quoted, ',') .. ']'
holes.total_state_change = number(total_state_change)
local last_ok = redis.call('GET', last_ok_key)
local check
if options.stored_pieces then
  check = render(11 + options.stored_pieces, #ARGV, holes)
else
  -- the two attributes follow the others
  check = string.sub(ARGV[11], 1, -2) .. ',"history":' .. holes.history .. ',"total_state_change":' .. holes.total_state_change .. '}'
end
local event = table.concat({
  '{"id":', cjson.encode(id),
  ',"client":', client_text,
  ',"check":', check,
  ',"occurrences":', number(occurrences),
  ',"occurrences_watermark":', number(watermark),
  ',"last_ok":', last_ok and (string.match(last_ok, '^-?%d+') or '0') or 'null',
  ',"action":"', action,
  '","timestamp":', number(now),
  changed and (',"last_state_change":' .. number(changed)) or '',
  ',"silenced":', #silenced_by > 0 and 'true' or 'false',
  ',"silenced_by":[', table.concat(silenced_by, ','), ']}',
})

-- 7. The event registry, and whether handlers are to be called.
local handle = 0
if not store then
  handle = 1
elseif not ok or (action == 'flapping' and not options.force_resolve) then
  redis.call('HSET', events_key, K, event)
  handle = 1
elseif (action == 'resolve' and (not options.never_resolves or options.force_resolve)) or action == 'flapping' then
  redis.call('HDEL', events_key, K)
  handle = 1
elseif options.metric then
  handle = 1
end
return answer({'stored', registered, client_text, action, handle, event})
`
