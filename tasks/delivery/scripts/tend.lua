-- Renew what a worker holds, requeue what no worker renews, and delete dead letters that are too old. Every
-- worker does.
-- ARGV: how long a take lasts (ms), a name for the data if it has none, tags.
-- Returns: tags that this worker no longer holds; the parked queues; the data's name; then tag and task id
-- (empty: it has none) of each delivery that is given up, and becomes a dead letter.
local SLIP_MS = 1000 -- a clock that was set back by less has lengthened nothing much
local lease_ms = tonumber(ARGV[1])
local now = now_ms()

-- No worker renewed for a while: Redis was unavailable or frozen, or its clock was set. Living workers get
-- time to renew first; only then does a silent one count as dead.
local seen = redis.call('HMGET', 'delivery:clock', 'swept_ms', 'calm_ms', 'data')
local swept, calm = tonumber(seen[1] or 0), tonumber(seen[2] or 0)
if now < swept or now - swept > lease_ms / 2 or calm > now + lease_ms then calm = now + lease_ms end
local data = seen[3] or ARGV[2]
redis.call('HSET', 'delivery:clock', 'swept_ms', now, 'calm_ms', calm, 'data', data)

local function set_back(times, by)
  local entries = redis.call('ZRANGE', times, 0, -1, 'WITHSCORES')
  for i = 1, #entries, 2 do redis.call('ZADD', times, entries[i + 1] - by, entries[i]) end
end

local lost = {}
for i = 3, #ARGV do
  local tag = ARGV[i]
  local id = redis.call('HGET', BEGUN, tag)
  if redis.call('HEXISTS', TAKEN, tag) == 0 then
    lost[#lost + 1] = tag
  else
    redis.call('ZADD', UNTIL, 'XX', now + lease_ms, tag)
    if id and redis.call('HGET', 'task:' .. id, 'tag') ~= tag then lost[#lost + 1] = tag end
  end
end

-- The clock was set back: no take lasts longer than a new one.
for _, tag in ipairs(redis.call('ZRANGEBYSCORE', UNTIL, '(' .. now + lease_ms, '+inf', 'LIMIT', 0, 1000)) do
  redis.call('ZADD', UNTIL, now + lease_ms, tag)
end

-- And nothing waits for longer than planned.
if swept - now > SLIP_MS then
  set_back(DELAYED, swept - now)
  set_back('flights', swept - now)
end
for _, tag in ipairs(redis.call('ZRANGEBYSCORE', 'flights', '-inf', now, 'LIMIT', 0, 100)) do
  if redis.call('HEXISTS', MESSAGES, tag) == 0 then redis.call('ZREM', 'flights', tag) end
end

local given_up = {}
if now >= calm then
  local silent, companies = redis.call('ZRANGEBYSCORE', UNTIL, '-inf', now, 'LIMIT', 0, 100), {}
  for _, tag in ipairs(silent) do
    local worker = string.match(tag, '^[^.]*')
    companies[worker] = (companies[worker] or 0) + 1
  end
  for _, tag in ipairs(silent) do
    local entry = redis.call('HGET', TAKEN, tag)
    if entry then
      local id = handle_lost_delivery(tag, entry, companies[string.match(tag, '^[^.]*')], false, now + lease_ms)
      if id then given_up[#given_up + 1], given_up[#given_up + 2] = tag, id end
      count('recovered')
    else
      forget(tag)
    end
  end
end

for _, letter in ipairs(redis.call('XRANGE', 'dead', '-', now - LETTER_TTL_MS, 'COUNT', 20)) do
  redis.call('XDEL', 'dead', letter[1])
  redis.call('HDEL', 'dead:messages', letter[1])
end
return {lost, redis.call('HKEYS', 'parked'), data, given_up}
