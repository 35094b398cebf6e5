-- Leave a message to others: it names a task that this worker does not have. It goes back to its list
-- as it was, at the end where messages are put in, so that it holds up nobody; workers of the same
-- tasks pass it over for a while.
-- ARGV: tag, digest of the tasks that this worker has, for how long they pass it over (ms), the name of
-- the message's task.
-- Returns: 1 if it was there.
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
