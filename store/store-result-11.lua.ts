/**
 * Stores one check result and says what became of it, atomically (Sensu 1.9: the whole way from client lookup to event registry).
 *
 * JSON is never decoded and encoded again here, since that would lose key order, empty arrays and big integers: the event is spliced
 * from texts, and what is decoded is only read. A "template" is a JSON text cut where the script has to fill something in:
 * piece, hole, piece, hole, … piece; holes are named 'command', 'history' and 'total_state_change'.
 *
 * KEYS: 1 clients, 2 client:C, 3 client:C:signature, 4 result:C, 5 result:C:K, 6 history:C:K, 7 history:C:K:last_ok, 8 ttl,
 *       9 events:C, 10 silenced, 11 aggregates
 * ARGV: 1 options (JSON, see ScriptOptions in result-script.ts), 2 '1' when this may be a repetition of a call whose answer was lost,
 *       then two templates: options.stored_pieces texts of the check as it is stored, the rest the check as it goes into the event
 * Returns {'refused', reason, client JSON} or {'stored', registered 0|1, client JSON, action, handle 0|1, event JSON}. Event JSON
 *       is '' for a plain OK result, which creates no event.
 */
export const storeResultScript = `
local options = cjson.decode(ARGV[1])
local C, K, now = options.client, options.check, options.now

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

-- 1. The registry: find the client, or create it. An event that is not stored (registration) brings its client along.
local registered = 0
local client_text = options.store and redis.call('GET', KEYS[2])
if client_text then
  local signed = decode(client_text)
  if not signed then return redis.error_reply('ERR the stored client ' .. C .. ' is not a JSON object') end
  if type(signed.signature) == 'string' and signed.signature ~= '' and signed.signature ~= options.signature then
    return {'refused', 'client', client_text}
  end
elseif options.store then
  local signature = redis.call('GET', KEYS[3])
  if signature and signature ~= '' and signature ~= options.signature then
    return {'refused', 'signature', ''}
  end
  client_text = options.blank_client
  registered = redis.call('SETNX', KEYS[3], '')
  redis.call('SET', KEYS[2], client_text)
  redis.call('SADD', KEYS[1], C)
else
  client_text = options.blank_client
end
local client = decode(client_text) or {}

local holes = { command = options.command }
if client.type == 'proxy' and present(options.proxy_command) then
  holes.command = options.proxy_command
end
local event_first = 3 + options.stored_pieces
local ok = options.status == '0'

-- 2. Aggregates, result, history, last_ok. A repeated call finds its own result stored and must not count it twice.
local result_text = render(3, event_first - 1, holes)
local repeated = ARGV[2] == '1' and redis.call('GET', KEYS[5]) == result_text
if options.store and not repeated then
  for _, aggregate in ipairs(options.aggregates) do
    redis.call('SADD', options.aggregate_prefix .. aggregate, C .. ':' .. K)
    redis.call('SADD', KEYS[11], aggregate)
  end
  redis.call('SADD', KEYS[4], K)
  redis.call('SET', KEYS[5], result_text)
  if options.ttl then redis.call('SADD', KEYS[8], C .. ':' .. K) end
  if redis.call('RPUSH', KEYS[6], options.status) > 21 then redis.call('LTRIM', KEYS[6], -21, -1) end
  if ok then redis.call('SET', KEYS[7], options.executed) end
end

local stored_text = options.store and redis.call('HGET', KEYS[9], K)
if options.plain and not stored_text and not repeated then
  return {'stored', registered, client_text, 'create', 0, ''}
end
local stored = stored_text and decode(stored_text)

-- 3. History, total state change (weights 0.80 to 1.20 over 21 entries), flapping.
local history = redis.call('LRANGE', KEYS[6], -21, -1)
if repeated then
  if stored and (not ok or stored.action == 'flapping') then
    return {'stored', registered, client_text, stored.action, 1, stored_text}
  end
  local previous, run = history[#history - 1], 0
  while previous and history[#history - 1 - run] == previous do run = run + 1 end
  if not stored and ok and previous and previous ~= '0' then stored = { occurrences = run } end
end
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
local id, occurrences, watermark, changed = options.id, 1, nil, nil
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
    redis.call('SREM', KEYS[10], key)
    redis.call('DEL', key)
  elseif not present(entry.begin) or (tonumber(entry.begin) or 0) <= now then
    silenced_by[#silenced_by + 1] = cjson.encode(string.sub(key, #options.silence_prefix + 1))
  end
end
if not (ok and action == 'create') then
  if type(client.subscriptions) == 'table' then
    for _, subscription in ipairs(client.subscriptions) do
      if type(subscription) == 'string' then
        consider(options.silence_prefix .. subscription .. ':*')
        consider(options.silence_prefix .. subscription .. ':' .. K)
      end
    end
  end
  consider(options.silence_prefix .. '*:' .. K)
end

-- 6. The event's text.
local function number(value)
  return string.format('%.0f', value)
end
local quoted = {}
for i, status in ipairs(history) do quoted[i] = cjson.encode(status) end
holes.history = '[' .. table.concat(quoted, ',') .. ']'
holes.total_state_change = number(total_state_change)
local last_ok = redis.call('GET', KEYS[7])
local event = table.concat({
  '{"id":', cjson.encode(id),
  ',"client":', client_text,
  ',"check":', render(event_first, #ARGV, holes),
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
if not options.store then
  handle = 1
elseif not ok or (action == 'flapping' and not options.force_resolve) then
  redis.call('HSET', KEYS[9], K, event)
  handle = 1
elseif (action == 'resolve' and (options.auto_resolve or options.force_resolve)) or action == 'flapping' then
  redis.call('HDEL', KEYS[9], K)
  handle = 1
elseif options.metric then
  handle = 1
end
return {'stored', registered, client_text, action, handle, event}
`
