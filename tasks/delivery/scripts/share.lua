-- Look up the answer to a call before a task makes it; another task may be making an equal call.
-- KEYS: task:ID, cache:DIGEST, flight:DIGEST, the result's key. ARGV: JSON: fence, tag, task_id, digest,
-- wait_ms (how long the task may wait), keep_s (how long its role keeps an answer).
-- Returns: 'cached' and the answer; 'own' (this task makes the call, and equal ones wait for it); 'alone'
-- (it makes the call, and no task waits: its answer will not be kept); 'waits' (its message is put away
-- until there is an answer); 'lost' (Redis has lost the message; restore it, then repeat); or 'gone' (this
-- delivery no longer has the task).
local args = cjson.decode(ARGV[1])
local task, flight, tag, id, digest = KEYS[1], KEYS[3], args.tag, args.task_id, args.digest
local owned, is_lost = owns(task, KEYS[4], args.fence)
if owned and is_lost then return {'lost'} end
local mine = redis.call('HMGET', task, 'tag', 'flight')
if not owned or mine[1] ~= tag or redis.call('HEXISTS', TAKEN, tag) == 0 then return {'gone'} end
redis.call('HSET', task, 'flight', digest)
-- The roles file has changed since the task waited for that call, or made it.
if mine[2] and mine[2] ~= digest then leave_shared_call(mine[2], id) end

local answer = redis.call('GET', KEYS[2])
if answer then
  -- The clock was set back: no answer is kept for longer than a new one.
  if redis.call('TTL', KEYS[2]) > args.keep_s then redis.call('EXPIRE', KEYS[2], args.keep_s) end
  leave_shared_call(digest, id, true)
  return answer == '' and {'alone'} or {'cached', answer}
end
local owner = owner_of(digest)
if not owner or owner == id then
  redis.call('SET', flight, id, 'PX', TASK_TTL_MS)
  redis.call('ZREM', flight .. ':waiting', id)
  return {'own'}
end

local now, entry = now_ms(), redis.call('HGET', TAKEN, tag)
local others = redis.call('ZCOUNT', flight .. ':waiting', '-inf', '+inf')
local recheck_ms = math.min(math.max(RECHECK_MS, others * RECHECK_SPACING_MS), MAX_RECHECK_MS)
local due = now + math.min(recheck_ms, args.wait_ms)
redis.call('HSET', task, 'aside', queue_of((split_entry(entry))) .. '\n' .. tag)
redis.call('ZADD', flight .. ':waiting', now, id)
redis.call('PEXPIRE', flight .. ':waiting', TASK_TTL_MS)
redis.call('ZADD', 'flights', due, tag)
release(task)
forget(tag)
delay_until(tag, entry, due)
return {'waits'}
