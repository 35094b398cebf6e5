-- A worker says that it is there; one that has not for a while is forgotten.
-- ARGV: worker, what it says of itself (JSON), for how long it is believed (ms), the queues it consumes.
-- Returns: who drains it (JSON), or nil.
local worker, lease_ms, now = ARGV[1], tonumber(ARGV[3]), now_ms()
redis.call('HSET', 'workers', worker, ARGV[2])
redis.call('ZADD', 'workers:until', now + lease_ms, worker)
for i = 4, #ARGV do redis.call('SADD', 'queues', ARGV[i]) end

local silent = redis.call('ZRANGEBYSCORE', 'workers:until', '-inf', now)
-- Or the clock was set back; who lives is there again in a moment.
for _, one in ipairs(redis.call('ZRANGEBYSCORE', 'workers:until', '(' .. now + lease_ms, '+inf')) do
  silent[#silent + 1] = one
end
for _, one in ipairs(silent) do
  redis.call('HDEL', 'workers', one)
  redis.call('HDEL', 'draining', one)
  redis.call('ZREM', 'workers:until', one)
end
return redis.call('HGET', 'draining', worker)
