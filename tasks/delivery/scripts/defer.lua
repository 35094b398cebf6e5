-- A message that is not due yet waits in Redis, not in a worker's memory.
-- ARGV: tag, due (ms). Returns: 1 if it was there.
local entry = redis.call('HGET', TAKEN, ARGV[1])
if not entry then return 0 end
forget(ARGV[1])
redis.call('HSET', MESSAGES, ARGV[1], entry)
redis.call('ZADD', DELAYED, ARGV[2], ARGV[1])
return 1
