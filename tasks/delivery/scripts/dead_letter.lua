-- Make a taken message a dead letter: nobody can make a task of it. If it names a task that was
-- never begun, whoever waits for that is told.
-- ARGV: tag, task id (empty: it has none of use), the result (empty: none), how long it is kept (s),
-- the letter's fields.
-- Returns: 1 if it was there.
local tag, id, meta = ARGV[1], ARGV[2], ARGV[3]
local entry = redis.call('HGET', TAKEN, tag)
if not entry then return 0 end
forget(tag)
local task, result = 'task:' .. id, RESULT .. id
if meta ~= '' and redis.call('EXISTS', result) == 0 and (redis.call('HEXISTS', task, 'fence') == 0
  or tonumber(redis.call('HGET', task, 'lost_alone') or 0) >= MAX_ALONE) then
  redis.call('SET', result, meta, 'EX', ARGV[4])
  redis.call('PUBLISH', result, meta)
  redis.call('DEL', task)
else
  meta = ''
end
dead_letter(id, entry, {unpack(ARGV, 5)}, now_ms(), meta)
return 1
