-- Make a taken message a dead letter, because it cannot become a task. If it names a task that never began,
-- this settles that task.
-- ARGV: JSON: tag, task_id (empty: it names no usable one), expires_s (of the result), fields (of the
-- letter: name, value, name, value, ...); then the result (empty: none).
-- Returns: 1 if the message was taken.
local args, meta = cjson.decode(ARGV[1]), ARGV[2]
local tag, id = args.tag, args.task_id
local entry = redis.call('HGET', TAKEN, tag)
if not entry then return 0 end
forget(tag)
local task, result = 'task:' .. id, RESULT .. id
if meta ~= '' and redis.call('EXISTS', result) == 0 and (redis.call('HEXISTS', task, 'fence') == 0
  or tonumber(redis.call('HGET', task, 'lost_alone') or 0) >= MAX_ALONE) then
  redis.call('SET', result, meta, 'EX', args.expires_s)
  redis.call('PUBLISH', result, meta)
  redis.call('DEL', task)
else
  meta = ''
end
dead_letter(id, entry, args.fields, now_ms(), meta)
return 1
