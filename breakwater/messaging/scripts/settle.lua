-- Settle a task: the holder of the newest fence writes its result, once.
-- KEYS: task:ID, the result's key. ARGV: JSON: fence (empty: any, such as a revocation), tag, task_id,
-- expires_s (of the result), opens (a queue to open if it is parked), numbered (how many attempts have a
-- number), keep_s (how long the answer is kept for equal calls; 0: not at all), letter (the fields of a
-- dead letter: name, value, name, value, ...; empty: none); then the result, the answer, and rows.
-- Returns: 'settled', 'opened' (settled, and the queue was parked), 'already' (the task has a result), or
-- 'superseded' (another delivery has begun).
local args, meta, answer = cjson.decode(ARGV[1]), ARGV[2], ARGV[3]
local task, result, id, keep_s = KEYS[1], KEYS[2], args.task_id, args.keep_s
local existing = redis.call('GET', result)
if existing == meta then return 'settled' end -- the reply was lost
local owned = not existing and (args.fence == '' or (owns(task, result, args.fence)))
append_rows(4, owned)
if existing then return 'already' end
if not owned then
  count('superseded')
  return 'superseded'
end
local now = now_ms()
if #ARGV == 3 then release(task) end -- a row means that its call has ended
redis.call('SET', result, meta, 'EX', args.expires_s)
redis.call('PUBLISH', result, meta)
redis.call('EXPIRE', 'asked:' .. id, args.expires_s)
local digest = redis.call('HGET', task, 'flight')
redis.call('DEL', task)
if redis.call('EXISTS', 'stream:' .. id) == 1 then redis.call('XADD', 'stream:' .. id, '*', 'event', 'end', 'data', '') end
if digest then
  if keep_s > 0 then redis.call('SET', 'cache:' .. digest, answer, 'EX', keep_s) end
  leave_shared_call(digest, id, keep_s > 0)
end
if #args.letter > 0 then
  local fields = {'numbered', args.numbered, unpack(args.letter)}
  dead_letter(id, redis.call('HGET', TAKEN, args.tag), fields, now, meta)
end
if args.opens ~= '' and redis.call('HDEL', 'parked', args.opens) == 1 then
  log_parking(args.opens, 'open', 0, 'answered', now)
  wake_workers(args.opens, MAX_WAKEUPS)
  return 'opened'
end
return 'settled'
