-- Take messages again that Redis lost with its data (a flush, a failover) while a living worker holds them.
-- Their tasks are that worker's again, unless another delivery has begun them since.
-- ARGV: JSON: lease_ms (how long a take lasts), deliveries (of each: tag, task_id (empty: unknown), fence
-- (empty: unknown), has_begun, list); then the message of each (empty: Redis has it).
-- Returns: the tags that this worker holds, and whose tasks no other delivery has.
local args, now, kept = cjson.decode(ARGV[1]), now_ms(), {}
for i, delivery in ipairs(args.deliveries) do
  local tag, id, fence, message = delivery.tag, delivery.task_id, delivery.fence, ARGV[1 + i]
  local task, result = 'task:' .. id, RESULT .. id
  local other = redis.call('HGET', task, 'tag')
  local is_free = not other or other == tag or redis.call('HEXISTS', TAKEN, other) == 0
  local owned = is_free and redis.call('EXISTS', result) == 0
  if owned and fence ~= '' then
    local newest, is_lost = owns(task, result, fence)
    owned = newest and (is_lost or other == tag) -- else this worker has requeued it
  end
  if owned and message ~= '' and redis.call('HSETNX', TAKEN, tag, delivery.list .. '\n' .. message) == 1 then
    redis.call('ZADD', UNTIL, now + args.lease_ms, tag)
    count('restored')
  end
  if owned and redis.call('HEXISTS', TAKEN, tag) == 1 then
    kept[#kept + 1] = tag
    if delivery.has_begun and id ~= '' then
      redis.call('HSET', task, 'tag', tag)
      if fence ~= '' then redis.call('HSET', task, 'fence', fence) end
      redis.call('PEXPIRE', task, TASK_TTL_MS)
      redis.call('HSET', BEGUN, tag, id)
    end
  end
end
return kept
