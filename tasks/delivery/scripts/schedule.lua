-- Keep a message that is not due yet in Redis, not in a worker's memory.
-- ARGV: tag, due (ms), the message that goes into its list then (empty: the same).
-- Returns: 1 if the message was taken.
local entry = redis.call('HGET', TAKEN, ARGV[1])
if not entry then return 0 end
forget(ARGV[1])
if ARGV[3] ~= '' then entry = (split_entry(entry)) .. '\n' .. ARGV[3] end
delay_until(ARGV[1], entry, ARGV[2])
return 1
