-- Give these workers nothing more; each finishes what it runs, and ends.
-- ARGV: act (as of `record`), then worker and name, by turns. Returns: names of those that are there
-- and were not draining before.
local act, now, done = ARGV[1], now_ms(), {}
local state = cjson.encode({who = cjson.decode(act).who, at_ms = now})
for i = 2, #ARGV, 2 do
  if redis.call('HEXISTS', 'workers', ARGV[i]) == 1 and redis.call('HSETNX', 'draining', ARGV[i], state) == 1 then
    record(act, ARGV[i + 1], now)
    done[#done + 1] = ARGV[i + 1]
  end
end
return done
