-- Delete dead letters and their messages for good.
-- ARGV: act (of `record`), letters. Returns: how many existed.
local number, now = 0, now_ms()
for i = 2, #ARGV do
  if redis.call('XDEL', 'dead', ARGV[i]) == 1 then
    redis.call('HDEL', 'dead:messages', ARGV[i])
    record(ARGV[1], ARGV[i], now)
    number = number + 1
  end
end
return number
