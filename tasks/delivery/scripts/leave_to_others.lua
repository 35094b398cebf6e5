-- Leave a message to others, because this worker does not have its task. It returns to its list unchanged,
-- at the tail, so that it blocks no other message; workers with the same tasks pass over it for a while.
-- ARGV: tag, digest of this worker's tasks, how long they pass over it (ms), the name of the message's
-- task.
-- Returns: 1 if the message was taken.
local tag, digest, ms, name = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local entry = redis.call('HGET', TAKEN, tag)
if not entry then return 0 end
local list, message = split_entry(entry)
local now, key = now_ms(), 'foreign:' .. digest
redis.call('LPUSH', list, message)
forget(tag)
redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
redis.call('ZADD', key, now + ms, redis.sha1hex(message))
redis.call('PEXPIRE', key, ms)
redis.call('HSET', 'foreign', name, queue_of(list))
redis.call('PEXPIRE', 'foreign', FOREIGN_TTL_MS)
return 1
