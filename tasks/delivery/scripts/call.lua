-- Record that a call goes out, or that it has ended.
-- KEYS: task:ID, the result's key. ARGV: JSON: fence, number (of the attempt), may_be_paid (the call ended without an
-- answer, and may have to be paid), numbered (how many attempts have a number); then the call's row, as it stays if its
-- end is never reported (empty: the call has ended); the attempt as JSON if it counts as a failure (else empty); rows.
-- Returns: how many calls of this task were repeated although their end is unknown; -1: another delivery
-- has begun, do not call.
local task, args, call, failure = KEYS[1], cjson.decode(ARGV[1]), ARGV[2], ARGV[3]
local owned, is_lost = owns(task, KEYS[2], args.fence)
append_rows(4, owned)
if not owned then
  count('superseded')
  return -1
end
redis.call('HSET', task, 'numbered', args.numbered)
if call == '' then
  local was_out = call_ends(task, args.number)
  if was_out and failure ~= '' then -- once, even if the reply was lost and this step is repeated
    local failed = redis.call('HGET', task, 'failed')
    redis.call('HSET', task, 'failed', failed and failed .. '\n' .. failure or failure)
  end
  if was_out and args.may_be_paid then redis.call('HINCRBY', task, 'unknown', 1) end
else
  local unknown = tonumber(redis.call('HGET', task, 'unknown') or 0)
  if unknown > 0 then
    redis.call('HDEL', task, 'unknown')
    redis.call('HINCRBY', task, 'duplicates', unknown)
    count('duplicates', unknown)
  end
  call_begins(task, args.number, call)
end
if is_lost then redis.call('PEXPIRE', task, TASK_TTL_MS) end
return tonumber(redis.call('HGET', task, 'duplicates') or 0)
