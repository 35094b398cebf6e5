-- Tell those who read along what a streamed task has come to.
-- KEYS: task:ID, stream:ID, the result's key. ARGV: fence, the number of this batch (they count over the task's whole
-- life), how long the stream is kept (ms), then event and data of each.
-- Returns: 1, or 0: another delivery has begun or the task is settled, so say no more.
local task, stream = KEYS[1], KEYS[2]
local owned, is_lost = owns(task, KEYS[3], ARGV[1])
if not owned then return 0 end
if tonumber(redis.call('HGET', task, 'told') or 0) >= tonumber(ARGV[2]) then return 1 end -- our answer was lost
for i = 4, #ARGV, 2 do
  if ARGV[i] == 'restart' then redis.call('XTRIM', stream, 'MAXLEN', 0) end -- void, so it need not be kept
  redis.call('XADD', stream, '*', 'event', ARGV[i], 'data', ARGV[i + 1])
end
redis.call('HSET', task, 'told', ARGV[2], 'telling', ARGV[#ARGV - 1] == 'restart' and 0 or 1)
if is_lost then redis.call('PEXPIRE', task, TASK_TTL_MS) end
redis.call('PEXPIRE', stream, ARGV[3])
return 1
