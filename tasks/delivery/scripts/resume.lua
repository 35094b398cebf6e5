-- Take from these queues again, and wake the workers that wait.
-- ARGV: act (of `record`), queues. Returns: those that were paused.
local act, now, done = ARGV[1], now_ms(), {}
for i = 2, #ARGV do
  if redis.call('HDEL', 'paused', ARGV[i]) == 1 then
    record(act, ARGV[i], now)
    wake_workers(ARGV[i], MAX_WAKEUPS)
    done[#done + 1] = ARGV[i]
  end
end
return done
