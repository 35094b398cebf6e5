-- Settle a task: its result is written once, by the holder of the newest fence.
-- KEYS: task:ID, the result's key. ARGV: fence (empty: anybody's, such as a revocation), tag, task
-- id, the result, how long it is kept (s), a queue to open if it is parked, how many attempts have a
-- number, how many rows follow, for how long its answer is kept for the same call (s; 0: it is not),
-- that answer, the rows, and for a dead letter its fields.
-- Returns: 'settled', 'opened' (settled, and the queue was parked), 'already' (there is a result), or 'superseded' (another one has begun).
local task, result, fence, tag, id = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local last, keep_s = 10 + ARGV[8], tonumber(ARGV[9])
local there = redis.call('GET', result)
if there == ARGV[4] then return 'settled' end -- our answer was lost
local owned = not there and (fence == '' or (owns(task, result, fence)))
append_rows(11, last, owned)
if there then return 'already' end
if not owned then
  count('superseded')
  return 'superseded'
end
local now = now_ms()
if ARGV[8] == '0' then release(task) end -- with a row its call has come to an end
redis.call('SET', result, ARGV[4], 'EX', ARGV[5])
redis.call('PUBLISH', result, ARGV[4])
redis.call('EXPIRE', 'asked:' .. id, ARGV[5])
local digest = redis.call('HGET', task, 'flight')
redis.call('DEL', task)
if redis.call('EXISTS', 'stream:' .. id) == 1 then redis.call('XADD', 'stream:' .. id, '*', 'event', 'end', 'data', '') end
if digest then
  if keep_s > 0 then redis.call('SET', 'cache:' .. digest, ARGV[10], 'EX', keep_s) end
  leave_shared_call(digest, id, keep_s > 0)
end
if #ARGV > last then
  dead_letter(id, redis.call('HGET', TAKEN, tag), {'numbered', ARGV[7], unpack(ARGV, last + 1)}, now, ARGV[4])
end
if ARGV[6] ~= '' and redis.call('HDEL', 'parked', ARGV[6]) == 1 then
  log_parking(ARGV[6], 'open', 0, 'answered', now)
  wake_workers(ARGV[6], MAX_WAKEUPS)
  return 'opened'
end
return 'settled'
