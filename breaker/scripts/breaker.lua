-- Shared by all scripts of the breaker; redis_storage.py puts it in front of each.
--
-- KEYS[1]  breaker:{name}         hash, no expiry
--   state          closed | open | half-open
--   failures       the run of failures; stays visible while open
--   successes      the successes of this half-open period, else 0
--   generation     grows with each transition: max(generation + 1, Redis time in µs)
--   seq            grows with each write; (generation, seq) orders the views of clients
--   open_until_ms  Redis time; 0 if not open
--   open_for_ms    the planned length of this open time; bounds it if the clock steps back
--   held_until_ms  the Redis time until which a Retry-After holds the provider back; 0 if none does
--   held_for_ms    the planned length of this hold
--   since_ms       Redis time of the last transition
--   trips          trips in a row; the open time grows with them
--   reason         class of the error that tripped it, `manual`, or `throttled` while held in closed
--   who            host:pid that made the last transition
--   stale          outcomes that were ignored because they came too late
--   forced         absent, open or closed; only operators set it
--   probe:<token>  the end of a probe's lease, Redis time in ms; in half-open only
-- Each write publishes the breaker's name on the channel breaker:changes.
-- KEYS[2]  breaker:{name}:events  stream of about 1,000: one entry per transition; transition() has the fields
--
-- ARGV[1]  JSON: who (host:pid of the client), lease_ms (length of a lease), and what the script itself reads

local key, events = KEYS[1], KEYS[2]
local args = cjson.decode(ARGV[1])
local who, lease_ms = args.who, args.lease_ms
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)

local b = {}             -- the breaker as read, then as it will be saved
local leases = {}        -- the live leases: token → expiry
local live = 0           -- the number of live leases
local gone = {}          -- the fields of leases that have ended
local from               -- the state before the last transition of this script
local rebuilt = 0        -- 1 if the hash was missing or mangled
local transitioned = 0   -- 1 if this script made a transition
local relieved = false   -- a hold has ended, and the hash still shows it
local dirty = false

local function natural(raw, otherwise)
  local n = tonumber(raw)
  if n and n >= 0 and n < 2 ^ 53 then return math.floor(n) end
  return otherwise
end

local function clamp(deadline, planned)
  if b[deadline] - now > b[planned] then
    b[deadline] = now + b[planned]
    dirty = true
  end
end

local function end_lease(token)
  leases[token] = nil
  live = live - 1
  gone[#gone + 1] = 'probe:' .. token
end

local function read_lease(token, expiry)
  if b.state ~= 'half-open' or expiry <= now then
    gone[#gone + 1] = 'probe:' .. token
    return
  end
  if expiry - now > lease_ms then
    expiry = now + lease_ms
    dirty = true
  end
  leases[token] = expiry
  live = live + 1
end

-- Reads the hash into `b`. Returns false if it is missing or mangled; `b` is then a new closed breaker.
local function read()
  local raw, hash = redis.pcall('HGETALL', key), {}
  if not raw.err then
    for i = 1, #raw, 2 do hash[raw[i]] = raw[i + 1] end
  end
  local known = hash.state == 'closed' or hash.state == 'open' or hash.state == 'half-open'
  for _, field in ipairs({'generation', 'failures', 'successes', 'open_until_ms'}) do
    b[field] = natural(hash[field])
    known = known and b[field] ~= nil
  end
  b.forced = (hash.forced == 'open' or hash.forced == 'closed') and hash.forced or ''
  if not known then
    hash = {state = 'closed'}
    b.generation, b.failures, b.successes, b.open_until_ms = 0, 0, 0, 0
  end

  b.state, from = hash.state, hash.state
  b.reason, b.who = hash.reason or '', hash.who or ''
  for _, field in ipairs({'seq', 'held_until_ms', 'since_ms', 'trips', 'stale'}) do
    b[field] = natural(hash[field], 0)
  end
  b.open_for_ms = natural(hash.open_for_ms, math.max(0, b.open_until_ms - now))
  b.held_for_ms = natural(hash.held_for_ms, math.max(0, b.held_until_ms - now))
  clamp('open_until_ms', 'open_for_ms')
  clamp('held_until_ms', 'held_for_ms')
  if b.held_until_ms > 0 and b.held_until_ms <= now then
    b.held_until_ms, b.held_for_ms, relieved = 0, 0, true
    if b.reason == 'throttled' then b.reason = '' end
  end
  for field, value in pairs(hash) do
    local token = string.match(field, '^probe:(.*)$')
    if token then read_lease(token, natural(value, 0)) end
  end
  return known
end

local function text(n) return string.format('%.0f', n) end

-- Writes the entry before the hash: if the server refuses it (-OOM), nothing has changed.
local function transition(to, reason)
  b.generation = math.max(b.generation + 1, now_us)
  redis.call('XADD', events, 'MAXLEN', '~', 1000, '*', 'from', b.state, 'to', to, 'reason', reason,
    'failures', text(b.failures), 'successes', text(b.successes), 'generation', text(b.generation),
    'open_until_ms', text(b.open_until_ms), 'trips', text(b.trips), 'who', who, 'at_ms', text(now))
  for token in pairs(leases) do end_lease(token) end
  from, transitioned, dirty = b.state, 1, true
  b.state, b.since_ms, b.who, b.successes = to, now, who, 0
end

local function save()
  b.seq = b.seq + 1
  local set = {'state', b.state, 'reason', b.reason, 'who', b.who}
  for _, field in ipairs({'failures', 'successes', 'generation', 'seq', 'open_until_ms', 'open_for_ms',
    'held_until_ms', 'held_for_ms', 'since_ms', 'trips', 'stale'}) do
    set[#set + 1] = field
    set[#set + 1] = text(b[field])
  end
  for token, expiry in pairs(leases) do
    set[#set + 1] = 'probe:' .. token
    set[#set + 1] = text(expiry)
  end
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
  redis.call('HSET', key, unpack(set))
  -- pcall: a refusal must not undo what is written. A client that receives nothing asks again.
  redis.pcall('PUBLISH', 'breaker:changes', string.match(key, '{(.*)}'))
end

-- Reads the hash. Rebuilds one that is missing or mangled, and ends its story in the stream.
local function read_or_rebuild()
  if read() then return end
  rebuilt = 1
  redis.call('DEL', key)
  if b.forced ~= '' then redis.call('HSET', key, 'forced', b.forced) end
  local last = {}
  local entry = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
  for i = 1, entry and #entry[2] or 0, 2 do last[entry[2][i]] = entry[2][i + 1] end
  b.generation = natural(last.generation, 0)
  if last.to and last.to ~= 'closed' then
    b.state = last.to
    transition('closed', 'lost')
  else
    b.generation, b.since_ms = math.max(b.generation + 1, now_us), now
  end
  dirty = true
end

-- Opens for `planned` ms, or for the rest of a Retry-After if that is longer.
local function open(planned, reason)
  b.open_for_ms = math.max(planned, b.held_until_ms - now)
  b.open_until_ms = now + b.open_for_ms
  b.held_until_ms, b.held_for_ms = 0, 0
  b.reason = reason
  transition('open', reason)
end

local function half_open(reason)
  b.open_until_ms, b.open_for_ms = 0, 0
  transition('half-open', reason)
end

local function close(reason)
  b.open_until_ms, b.open_for_ms = 0, 0
  transition('closed', reason)
  b.failures = 0
  b.reason = b.held_until_ms > 0 and 'throttled' or ''
end

-- The reply of every script; redis_storage.py parses it in this order.
local function view(verdict, wait_ms)
  return {verdict, wait_ms, rebuilt, transitioned, from, b.state, b.failures, b.successes, b.generation, b.seq,
    math.max(0, b.open_until_ms - now), math.max(0, b.held_until_ms - now), b.since_ms, b.trips,
    b.reason, b.who, b.stale, b.forced, live}
end

local function answer(verdict, wait_ms)
  if dirty then save() end
  return view(verdict, wait_ms)
end
