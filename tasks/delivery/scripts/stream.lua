-- Append a batch to the stream of a task.
-- KEYS: task:ID, stream:ID, the result's key. ARGV: fence, the number of this batch (it counts all
-- deliveries of the task), how long the stream is kept (ms), then event, data, event, data, ...
-- Returns: 1; or 0: another delivery has begun or the task is settled, so send no more.
local task, stream = KEYS[1], KEYS[2]
local owned, is_lost = owns(task, KEYS[3], ARGV[1])
if not owned then return 0 end
if tonumber(redis.call('HGET', task, 'told') or 0) >= tonumber(ARGV[2]) then return 1 end -- the reply was lost
for i = 4, #ARGV, 2 do
  if ARGV[i] == 'restart' then redis.call('XTRIM', stream, 'MAXLEN', 0) end -- the entries so far are void
  redis.call('XADD', stream, '*', 'event', ARGV[i], 'data', ARGV[i + 1])
end
redis.call('HSET', task, 'told', ARGV[2], 'telling', ARGV[#ARGV - 1] == 'restart' and 0 or 1)
if is_lost then redis.call('PEXPIRE', task, TASK_TTL_MS) end
redis.call('PEXPIRE', stream, ARGV[3])
return 1
