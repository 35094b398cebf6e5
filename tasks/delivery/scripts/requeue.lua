-- A task cannot go on now: put its message back, with what it has come to so far.
-- KEYS: task:ID, the result's key. ARGV: fence, tag, attempts (JSON), repeats, the role's queue, how long to delay it
-- (ms; 0: back to the head of the queue), how long the queue is parked (ms; 0: it is not), reason,
-- how many may pass when that is over, how many attempts have a number, when it was enqueued (ms; 0:
-- its message says), rows.
-- Returns: 1, 2 if it parked the queue, 0: another delivery has begun, or -1: Redis has lost the message
-- and nothing was done; restore it, and ask again.
local task, fence, tag = KEYS[1], ARGV[1], ARGV[2]
local queue, delay, park = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local owned, is_lost = owns(task, KEYS[2], fence)
local entry = redis.call('HGET', TAKEN, tag)
if is_lost and not entry then return -1 end
append_rows(12, #ARGV, owned)
if not owned then return 0 end
local now = now_ms()
redis.call('HSET', task, 'attempts', ARGV[3], 'repeats', ARGV[4], 'numbered', ARGV[10])
if ARGV[11] ~= '0' then redis.call('HSETNX', task, 'enqueued_ms', ARGV[11]) end
redis.call('HDEL', task, 'lost_calls', 'failed') -- they are among the attempts
release(task)
if not entry then return 1 end -- taken for lost meanwhile, and in its list already
forget(tag)
if delay > 0 then
  delay_until(tag, entry, now + delay)
  return 1
end
to_queue(queue, task, tag, entry)
if park > 0 then
  local old = redis.call('HGET', 'parked', queue)
  local since = old and cjson.decode(old).since_ms or now
  redis.call('HSET', 'parked', queue, cjson.encode({
    until_ms = now + park, for_ms = park, since_ms = since, reason = ARGV[8], few = tonumber(ARGV[9]), passed = 0}))
  if not old then
    log_parking(queue, 'parked', now + park, ARGV[8], now)
    return 2
  end
else
  wake_workers(queue, 1)
end
return 1
