-- A worker says that it is there; one that has not for a while is forgotten.
-- ARGV: worker, what it says of itself (JSON), for how long it is believed (ms), the queues it consumes.
-- Returns: who drains it (JSON), or nil.
local worker, lease_ms, now = ARGV[1], tonumber(ARGV[3]), now_ms()
redis.call('HSET', 'workers', worker, ARGV[2])
redis.call('ZADD', 'workers:until', now + lease_ms, worker)
for i = 4, #ARGV do redis.call('SADD', 'queues', ARGV[i]) end

-- The clock was set back: nobody is believed for longer than one who says so now.
for _, one in ipairs(redis.call('ZRANGEBYSCORE', 'workers:until', '(' .. now + lease_ms, '+inf')) do
  redis.call('ZADD', 'workers:until', now + lease_ms, one)
end
-- It was set forward, or nobody looked for a while: those who live come first to say so (`tend`).
local calm = tonumber(redis.call('HGET', 'delivery:clock', 'calm_ms') or 0)
local wait = now < calm and calm <= now + lease_ms
local silent = wait and {} or redis.call('ZRANGEBYSCORE', 'workers:until', '-inf', now)
for _, one in ipairs(silent) do
  redis.call('HDEL', 'workers', one)
  redis.call('HDEL', 'draining', one)
  redis.call('ZREM', 'workers:until', one)
end
return redis.call('HGET', 'draining', worker)
