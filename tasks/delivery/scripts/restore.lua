-- Take messages again that Redis has lost with its data (a flush, a failover) while a living worker has
-- them in hand, and make their tasks that worker's again, unless somebody else has begun them since.
-- ARGV: how long a take lasts (ms), then of each delivery: tag, task id (empty: not known), fence (empty:
-- not known), '1' if its task has begun, list, message (empty: Redis has it).
-- Returns: the tags that are taken, and whose tasks are nobody else's.
local now, kept = now_ms(), {}
for i = 2, #ARGV, 6 do
  local tag, id, fence, has_begun = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3] == '1'
  local task, result = 'task:' .. id, RESULT .. id
  local other = redis.call('HGET', task, 'tag')
  local is_free = not other or other == tag or redis.call('HEXISTS', TAKEN, other) == 0
  local owned = is_free and redis.call('EXISTS', result) == 0
  if owned and fence ~= '' then
    local newest, is_lost = owns(task, result, fence)
    owned = newest and (is_lost or other == tag) -- else this worker has put it back itself
  end
  if owned and ARGV[i + 5] ~= '' and redis.call('HSETNX', TAKEN, tag, ARGV[i + 4] .. '\n' .. ARGV[i + 5]) == 1 then
    redis.call('ZADD', UNTIL, now + tonumber(ARGV[1]), tag)
    count('restored')
  end
  if owned and redis.call('HEXISTS', TAKEN, tag) == 1 then
    kept[#kept + 1] = tag
    if has_begun and id ~= '' then
      redis.call('HSET', task, 'tag', tag)
      if fence ~= '' then redis.call('HSET', task, 'fence', fence) end
      redis.call('PEXPIRE', task, TASK_TTL_MS)
      redis.call('HSET', BEGUN, tag, id)
    end
  end
end
return kept
