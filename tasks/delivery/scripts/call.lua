-- A call is about to go out, or has come to a known end.
-- KEYS: task:ID. ARGV: fence, the provider (empty: the call has ended).
-- Returns: how many calls of this task were paid for without an answer so far, or -1: another
-- delivery has begun, do not call.
local task, fence, provider = KEYS[1], ARGV[1], ARGV[2]
if redis.call('HGET', task, 'fence') ~= fence then
  count('superseded')
  return -1
end
if provider == '' then
  redis.call('HDEL', task, 'calling')
else
  local unknown = tonumber(redis.call('HGET', task, 'unknown') or 0)
  if unknown > 0 then
    redis.call('HDEL', task, 'unknown')
    redis.call('HINCRBY', task, 'duplicates', unknown)
    count('duplicates', unknown)
  end
  redis.call('HSET', task, 'calling', provider)
end
return tonumber(redis.call('HGET', task, 'duplicates') or 0)
