-- Publish that a worker is alive, and remove workers whose lease has expired.
-- ARGV: JSON: worker, description (JSON), lease_ms (how long the worker counts as alive), version (of its
-- roles file), roles (that it serves, JSON; empty: publish none), queues (that it consumes).
-- Returns: who drains it (JSON), or nil.
local args, now = cjson.decode(ARGV[1]), now_ms()
local worker, lease_ms = args.worker, args.lease_ms
redis.call('HSET', 'workers', worker, args.description)
redis.call('ZADD', 'workers:until', now + lease_ms, worker)
for _, queue in ipairs(args.queues) do redis.call('SADD', 'queues', queue) end
if args.roles ~= '' then
  redis.call('HSET', 'roles', args.version, args.roles)
  redis.call('ZADD', 'roles:until', now + lease_ms, args.version)
  -- Remove versions without a living worker; the last one stays, so that producers know its roles.
  for _, range in ipairs({{'-inf', now}, {'(' .. now + lease_ms, '+inf'}}) do
    for _, old in ipairs(redis.call('ZRANGEBYSCORE', 'roles:until', range[1], range[2])) do
      redis.call('HDEL', 'roles', old)
      redis.call('ZREM', 'roles:until', old)
    end
  end
end

-- The clock was set back: no lease is longer than a new one.
for _, one in ipairs(redis.call('ZRANGEBYSCORE', 'workers:until', '(' .. now + lease_ms, '+inf')) do
  redis.call('ZADD', 'workers:until', now + lease_ms, one)
end
-- It was set forward, or no worker renewed for a while: living workers renew first (`tend`).
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
