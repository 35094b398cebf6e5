-- Begin a task: one delivery of it runs, and holds the newest fence.
-- KEYS: task:ID, the result's key. ARGV: JSON: tag, task_id, queue (of its role; empty: unknown), numbered (how
-- many attempts then have a number); then the row of the call that goes out now, as it stays if its end is never
-- reported (empty: no call yet).
-- Returns: 'gone' (the message was requeued meanwhile), 'settled' (the task has a result), 'has_history' (a call
-- was to go out, but the task has a history that must be read first; nothing was done), 'owned' (another
-- delivery of this id runs, and this one is dropped), 'paused' (the role is paused; the message waits at
-- the head of the role's queue, even if it came from the common one), or 'run', the fence, and the task's
-- fields.
local args, call = cjson.decode(ARGV[1]), ARGV[2]
local task, result, tag, id, queue = KEYS[1], KEYS[2], args.tag, args.task_id, args.queue
if redis.call('HEXISTS', TAKEN, tag) == 0 then return {'gone'} end
if redis.call('EXISTS', result) == 1 then return {'settled'} end
if call ~= '' and redis.call('EXISTS', task) == 1 then return {'has_history'} end
local held = redis.call('HGET', task, 'tag')
if held and held ~= tag and redis.call('HEXISTS', TAKEN, held) == 1 then
  forget(tag)
  return {'owned'}
end
if call_or_nil('HEXISTS', 'paused', queue) == 1 then
  local entry = redis.call('HGET', TAKEN, tag)
  forget(tag)
  to_queue(queue, task, tag, entry)
  return {'paused'}
end
if held == tag then -- the same delivery repeats this step: no worker was lost, and no call went out
  for _, field in ipairs(calls_out(task)) do redis.call('HDEL', task, field) end
  redis.call('HDEL', task, 'attempt_out')
elseif held then
  release(task)
end
-- A plain count would repeat numbers after a loss of Redis' data.
local fence = math.max(tonumber(redis.call('HGET', task, 'fence') or 0) + 1, now_ms())
redis.call('HSET', task, 'fence', string.format('%.0f', fence), 'tag', tag)
if call ~= '' then
  redis.call('HSET', task, 'calling', call, 'attempt_out', args.numbered, 'numbered', args.numbered)
end
redis.call('PEXPIRE', task, TASK_TTL_MS)
redis.call('HSET', BEGUN, tag, id)
local fields = redis.call('HGETALL', task)
redis.call('HDEL', task, 'accused')
return {'run', string.format('%.0f', fence), fields}
