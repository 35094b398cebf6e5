-- Give a dead letter a second life: its error is forgotten and its message queued again.
-- KEYS: task:ID, the result's key. ARGV: entry of the stream, task id.
-- Returns: 1 if its message was there.
local entry = redis.call('HGET', 'dead:messages', ARGV[2])
redis.call('XDEL', 'dead', ARGV[1])
if not entry then return 0 end
redis.call('HDEL', 'dead:messages', ARGV[2])
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'enqueued_ms', now_ms())
redis.call('PEXPIRE', KEYS[1], TASK_LIVES_MS)
local list, message = parts(entry)
redis.call('LPUSH', list, message)
ring(queue_of(list), 1)
return 1
