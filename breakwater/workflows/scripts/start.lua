-- Start a run, unless it exists.
-- ARGV: JSON: id, name (of the workflow), who, turns (pairs of KEY and the turn's JSON); then the
-- definition and the input, both encrypted if there are keys.
-- Returns: 1; 0 if the run exists.
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
append_event('run', 'none', 'pending', who, now)
for i = 1, #turns, 2 do
  redis.call('HSET', RUN, 'turn:' .. turns[i], turns[i + 1])
  append_event(turns[i], 'none', 'pending', who, now)
end
extend_life()
return 1
