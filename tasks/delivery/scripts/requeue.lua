-- Requeue a task that cannot continue now, with its history.
-- KEYS: task:ID, the result's key. ARGV: JSON: fence, tag, attempts (JSON), repeats, queue (of its role),
-- delay_ms (0: to the head of the queue), park_ms (how long the queue is parked; 0: it is not), reason,
-- trial_count (how many tasks are taken after that), numbered (how many attempts have a number),
-- enqueued_ms (0: its message contains it); then rows.
-- Returns: 1; 2 if it parked the queue; 0: another delivery has begun; -1: Redis has lost the message, and
-- nothing was done; restore it, then repeat.
local task, args = KEYS[1], cjson.decode(ARGV[1])
local tag, queue = args.tag, args.queue
local owned, is_lost = owns(task, KEYS[2], args.fence)
local entry = redis.call('HGET', TAKEN, tag)
if is_lost and not entry then return -1 end
append_rows(2, owned)
if not owned then return 0 end
local now = now_ms()
redis.call('HSET', task, 'attempts', args.attempts, 'repeats', args.repeats, 'numbered', args.numbered)
if args.enqueued_ms ~= 0 then redis.call('HSETNX', task, 'enqueued_ms', args.enqueued_ms) end
redis.call('HDEL', task, 'lost_calls', 'failed') -- the attempts contain them
release(task)
if not entry then return 1 end -- it counted as lost meanwhile, and is in its list already
forget(tag)
if args.delay_ms > 0 then
  delay_until(tag, entry, now + args.delay_ms)
  return 1
end
to_queue(queue, task, tag, entry)
if args.park_ms > 0 then
  local old = redis.call('HGET', 'parked', queue)
  local since = old and cjson.decode(old).since_ms or now
  redis.call('HSET', 'parked', queue, cjson.encode({
    until_ms = now + args.park_ms, for_ms = args.park_ms, since_ms = since, reason = args.reason,
    few = args.trial_count, passed = 0}))
  if not old then
    log_parking(queue, 'parked', now + args.park_ms, args.reason, now)
    return 2
  end
else
  wake_workers(queue, 1)
end
return 1
