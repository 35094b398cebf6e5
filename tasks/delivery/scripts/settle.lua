-- Settle a task: its result is written once, by the holder of the newest fence.
-- KEYS: task:ID, the result's key. ARGV: fence (empty: anybody's, such as a revocation), tag, task
-- id, the result, how long it is kept (s), a queue to open if it is parked, and for a dead letter
-- its fields.
-- Returns: 'settled', 'opened' (settled, and the queue was parked), 'already' (there is a result), or 'superseded' (another one has begun).
local task, result, fence, tag, id = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local there = redis.call('GET', result)
if there then return there == ARGV[4] and 'settled' or 'already' end -- the same: our answer was lost
if fence ~= '' and redis.call('HGET', task, 'fence') ~= fence then
  count('superseded')
  return 'superseded'
end
local now = now_ms()
redis.call('SET', result, ARGV[4], 'EX', ARGV[5])
redis.call('PUBLISH', result, ARGV[4])
redis.call('DEL', task)
if #ARGV > 6 then
  bury(id, redis.call('HGET', TAKEN, tag), {unpack(ARGV, 7)}, now, ARGV[4])
end
if ARGV[6] ~= '' and redis.call('HDEL', 'parked', ARGV[6]) == 1 then
  tell(ARGV[6], 'open', 0, 'answered', now)
  ring(ARGV[6], RINGS)
  return 'opened'
end
return 'settled'
