-- Stop these workers from taking messages; each finishes what it runs, and ends.
-- ARGV: act (of `record`), then worker, name, worker, name, ... Returns: the names of those that exist and
-- were not draining.
local act, now, done = ARGV[1], now_ms(), {}
local state = cjson.encode({who = cjson.decode(act).who, at_ms = now})
for i = 2, #ARGV, 2 do
  if redis.call('HEXISTS', 'workers', ARGV[i]) == 1 and redis.call('HSETNX', 'draining', ARGV[i], state) == 1 then
    record(act, ARGV[i + 1], now)
    done[#done + 1] = ARGV[i + 1]
  end
end
return done
