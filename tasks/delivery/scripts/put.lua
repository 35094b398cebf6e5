-- Put messages at the ends of their lists, and ring for them; the keys are those of delivery.lua.
--
-- It stands alone: delivery.lua begins with a write that a full server lets through, and then so
-- would be what follows. Here the first write is refused (OOM), and nothing is half put.
--
-- KEYS: a list and its bell, again and again
-- ARGV: how many rings a bell holds; then for each list the number of its messages, and these
local rings, at = tonumber(ARGV[1]), 2
for i = 1, #KEYS, 2 do
  local number = tonumber(ARGV[at])
  redis.call('LPUSH', KEYS[i], unpack(ARGV, at + 1, at + number))
  for _ = 1, math.min(number, rings) do redis.call('LPUSH', KEYS[i + 1], 1) end
  redis.call('LTRIM', KEYS[i + 1], 0, rings - 1)
  at = at + number + 1
end
