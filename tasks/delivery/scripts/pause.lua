-- Take nothing from these queues until an operator resumes them.
-- ARGV: act (of `record`), reason, queues. Returns: those that were not paused before.
local act, why, now, done = ARGV[1], ARGV[2], now_ms(), {}
local state = cjson.encode({who = cjson.decode(act).who, at_ms = now, why = why})
for i = 3, #ARGV do
  if redis.call('HSETNX', 'paused', ARGV[i], state) == 1 then
    record(act, ARGV[i], now)
    done[#done + 1] = ARGV[i]
  end
end
return done
