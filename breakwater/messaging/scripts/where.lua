-- Find a task that has no result; one call reads a bounded number of messages.
-- KEYS: task:ID, the result's key. ARGV: its id, where to continue (1: at the beginning, with what needs no
-- search), how many messages to read, lists that may hold it.
-- Returns: {'settled'}, {'running', queue}, {'unknown'}, {'more', where to continue}, or {'waiting', how,
-- queue, ahead, due, hold, parked}: how is 'queue', 'delayed' (until due, ms), 'shared' (for the answer to
-- an equal call) or 'taken' (by a worker that has not begun it); ahead counts the messages of its own
-- priority that are taken before it; hold and parked are the entries of `paused` and `parked`.
local task, id, first, most = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local mark = {'"id": "' .. id .. '"', '"id":"' .. id .. '"'} -- in a body the quotes are escaped

local function is_its_own(message)
  return message and (string.find(message, mark[1], 1, true) or string.find(message, mark[2], 1, true))
end

local function waiting(how, list, ahead, due)
  local queue = queue_of(list)
  return {'waiting', how, queue, ahead, due or '',
    redis.call('HGET', 'paused', queue) or '', redis.call('HGET', 'parked', queue) or ''}
end

if redis.call('EXISTS', KEYS[2]) == 1 then return {'settled'} end
local tag, aside = unpack(redis.call('HMGET', task, 'tag', 'aside'))
local entry = tag and redis.call('HGET', TAKEN, tag)
if entry then return {'running', queue_of((split_entry(entry)))} end
if aside then
  local stop = string.find(aside, '\n', 1, true)
  local due = redis.call('ZSCORE', 'flights', string.sub(aside, stop + 1))
  if due then return waiting('shared', string.sub(aside, 1, stop - 1), -1, due) end
end

-- Search one place after the other: taken messages, delayed ones, then the lists from their heads.
local at = 0
local function page(length)
  local from = math.max(first - at, 1)
  at = at + length
  local to = math.min(length, from + most - 1)
  if from > to then return nil end
  most, first = most - (to - from + 1), first + (to - from + 1)
  return from, to
end

local tags = redis.call('ZRANGE', UNTIL, 0, -1)
local from, to = page(#tags)
for i = from or 1, to or 0 do
  local held = redis.call('HGET', TAKEN, tags[i])
  if is_its_own(held) then return waiting('taken', (split_entry(held)), -1) end
end
from, to = page(redis.call('ZCARD', DELAYED))
local later = from and redis.call('ZRANGE', DELAYED, from - 1, to - 1, 'WITHSCORES') or {}
for i = 1, #later, 2 do
  local put = redis.call('HGET', MESSAGES, later[i])
  if is_its_own(put) then return waiting('delayed', (split_entry(put)), -1, later[i + 1]) end
end
for i = 4, #ARGV do
  from, to = page(redis.call('LLEN', ARGV[i]))
  local messages = from and redis.call('LRANGE', ARGV[i], -to, -from) or {}
  for n = #messages, 1, -1 do
    if is_its_own(messages[n]) then return waiting('queue', ARGV[i], from - 1 + #messages - n) end
  end
  if most == 0 then return {'more', first} end
end
if redis.call('EXISTS', task) == 1 then return waiting('queue', '', -1) end
return {'unknown'}
