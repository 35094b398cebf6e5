-- A message that is not due yet waits in Redis, not in a worker's memory.
-- ARGV: tag, due (ms). Returns: 1 if it was there.
local entry = redis.call('HGET', TAKEN, ARGV[1])
if not entry then return 0 end
forget(ARGV[1])
put_away(ARGV[1], entry, ARGV[2])
return 1
