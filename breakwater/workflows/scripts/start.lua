-- Begin a run, unless it was begun.
-- ARGV: JSON: id, name (of the workflow), who, turns (KEY and the turn's JSON, one after the other); then the definition
-- and the input, both sealed if there are keys.
-- Returns: 1; 0 if there was one.
local args = cjson.decode(ARGV[1])
local id, who, turns = args.id, args.who, args.turns
if redis.call('EXISTS', RUN) == 1 then return 0 end
for _, old in ipairs(redis.call('ZRANGE', INDEX, 0, STALE - 1)) do
  if redis.call('EXISTS', 'workflow:' .. old) == 0 then redis.call('ZREM', INDEX, old) end
end
local now = now_ms()
redis.call('HSET', RUN, 'name', args.name, 'state', 'pending', 'created_ms', now, 'turns', 0, 'out', 0)
redis.call('HSET', ANSWERS, 'definition', ARGV[2], 'input', ARGV[3])
redis.call('ZADD', INDEX, now, id)
tell('run', 'none', 'pending', who, now)
for i = 1, #turns, 2 do
  redis.call('HSET', RUN, 'turn:' .. turns[i], turns[i + 1])
  tell(turns[i], 'none', 'pending', who, now)
end
live()
return 1
