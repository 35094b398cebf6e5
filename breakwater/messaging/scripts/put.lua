-- Put messages at the tails of their lists, and wake workers; delivery.lua explains the keys.
--
-- This script does not include delivery.lua, which begins with a write that a full server permits, and then
-- also permits the writes that follow. Here the first write is refused (OOM), so the script puts all
-- messages or none.
--
-- KEYS: a list and its wakeup list, again and again
-- ARGV: how many entries a wakeup list keeps; how many of the next words belong to tasks with ids that
-- their callers have chosen: an id, and digests of what is asked; then for each list the number of its
-- messages, and the messages. One of our producers' ends before the time at which it is stored; this script
-- adds it.
-- Returns: an id under which something else was asked before, and nothing is put; or nil.
local ASKED_TTL_MS, DIGEST = 30 * 24 * 3600 * 1000, 32
local max_wakeups, at = tonumber(ARGV[1]), 3 + ARGV[2]
for i = 3, at - 1, 2 do
  local digest = redis.call('GET', 'asked:' .. ARGV[i])
  if digest and not string.find(ARGV[i + 1], digest, 1, true) then return ARGV[i] end
end
for i = 3, at - 1, 2 do
  redis.call('SET', 'asked:' .. ARGV[i], string.sub(ARGV[i + 1], 1, DIGEST), 'PX', ASKED_TTL_MS)
end
local OPEN = '"enqueued_ms":'
local t = redis.call('TIME')
local stored = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)) .. '}}}'
for i = 1, #KEYS, 2 do
  local number = tonumber(ARGV[at])
  local messages = {}
  for j = 1, number do
    local message = ARGV[at + j]
    messages[j] = string.sub(message, -#OPEN) == OPEN and message .. stored or message
  end
  redis.call('LPUSH', KEYS[i], unpack(messages))
  for _ = 1, math.min(number, max_wakeups) do redis.pcall('LPUSH', KEYS[i + 1], 1) end
  redis.pcall('LTRIM', KEYS[i + 1], 0, max_wakeups - 1)
  at = at + number + 1
end
