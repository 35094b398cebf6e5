-- Make a taken message a dead letter without a result: it is no task of ours.
-- ARGV: tag, id, fields. Returns: 1 if it was there.
local entry = redis.call('HGET', TAKEN, ARGV[1])
if not entry then return 0 end
forget(ARGV[1])
bury(ARGV[2], entry, {unpack(ARGV, 3)}, now_ms())
return 1
