-- Open a parked queue.
-- ARGV: queue, reason. Returns: 1 if it was parked.
if redis.call('HDEL', 'parked', ARGV[1]) == 0 then return 0 end
log_parking(ARGV[1], 'open', 0, ARGV[2], now_ms())
wake_workers(ARGV[1], MAX_WAKEUPS)
return 1
