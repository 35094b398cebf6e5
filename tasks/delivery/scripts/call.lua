-- A call is about to go out, or has come to an end.
-- KEYS: task:ID, the result's key. ARGV: fence, the call (its row if nobody hears its end; empty: it has ended), '1' if
-- it ended without an answer but may have to be paid, how many attempts have a number, the attempt
-- (JSON) if it has failed and this is to be remembered, rows.
-- Returns: how many calls of this task were paid for without an answer so far, or -1: another
-- delivery has begun, do not call.
local task, fence, call = KEYS[1], ARGV[1], ARGV[2]
local owned, is_lost = owns(task, KEYS[2], fence)
append_rows(6, #ARGV, owned)
if not owned then
  count('superseded')
  return -1
end
redis.call('HSET', task, 'numbered', ARGV[4])
if call == '' then
  local was_out = redis.call('HDEL', task, 'calling') == 1
  if was_out and ARGV[5] ~= '' then -- once, also when the reply was lost and this is asked again
    local failed = redis.call('HGET', task, 'failed')
    redis.call('HSET', task, 'failed', failed and failed .. '\n' .. ARGV[5] or ARGV[5])
  end
  if was_out and ARGV[3] == '1' then redis.call('HINCRBY', task, 'unknown', 1) end
else
  local unknown = tonumber(redis.call('HGET', task, 'unknown') or 0)
  if unknown > 0 then
    redis.call('HDEL', task, 'unknown')
    redis.call('HINCRBY', task, 'duplicates', unknown)
    count('duplicates', unknown)
  end
  redis.call('HSET', task, 'calling', call)
end
if is_lost then redis.call('PEXPIRE', task, TASK_TTL_MS) end
return tonumber(redis.call('HGET', task, 'duplicates') or 0)
