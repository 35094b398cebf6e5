-- Begin a run, unless it was begun.
-- ARGV: its id, the workflow's name, who, the definition, the input, then turns: KEY, JSON, …
-- Returns: 1; 0 if there was one.
local id, who = ARGV[1], ARGV[3]
if redis.call('EXISTS', RUN) == 1 then return 0 end
for _, old in ipairs(redis.call('ZRANGE', INDEX, 0, STALE - 1)) do
  if redis.call('EXISTS', 'workflow:' .. old) == 0 then redis.call('ZREM', INDEX, old) end
end
local now = now_ms()
redis.call('HSET', RUN, 'name', ARGV[2], 'state', 'pending', 'created_ms', now, 'turns', 0, 'out', 0)
redis.call('HSET', ANSWERS, 'definition', ARGV[4], 'input', ARGV[5])
redis.call('ZADD', INDEX, now, id)
tell('run', 'none', 'pending', who, now)
for i = 6, #ARGV, 2 do
  redis.call('HSET', RUN, 'turn:' .. ARGV[i], ARGV[i + 1])
  tell(ARGV[i], 'none', 'pending', who, now)
end
live()
return 1
