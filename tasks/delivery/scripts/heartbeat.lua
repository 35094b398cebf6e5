-- A worker says that it is there; one that has not for a while is forgotten.
-- ARGV: worker, what it says of itself (JSON), for how long it is believed (ms), the version of its roles
-- file, the roles that it serves (JSON; empty: none are published), the queues it consumes.
-- Returns: who drains it (JSON), or nil.
local worker, lease_ms, now = ARGV[1], tonumber(ARGV[3]), now_ms()
redis.call('HSET', 'workers', worker, ARGV[2])
redis.call('ZADD', 'workers:until', now + lease_ms, worker)
for i = 6, #ARGV do redis.call('SADD', 'queues', ARGV[i]) end
if ARGV[5] ~= '' then
  redis.call('HSET', 'roles', ARGV[4], ARGV[5])
  redis.call('ZADD', 'roles:until', now + lease_ms, ARGV[4])
  -- Versions of no living worker go; the last one stays, so that producers know roles meanwhile.
  for _, range in ipairs({{'-inf', now}, {'(' .. now + lease_ms, '+inf'}}) do
    for _, old in ipairs(redis.call('ZRANGEBYSCORE', 'roles:until', range[1], range[2])) do
      redis.call('HDEL', 'roles', old)
      redis.call('ZREM', 'roles:until', old)
    end
  end
end

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
  redis.pcall('HDEL', 'draining', one)
  redis.pcall('HDEL', 'apart:workers', one)
  redis.call('ZREM', 'workers:until', one)
end
return call_or_nil('HGET', 'draining', worker)
