-- Retry a dead letter in one step: its error is deleted, its deadline starts again, its message goes to the
-- tail of its queue, and the letter is deleted.
-- ARGV: the letter, a queue instead of the message's own (empty: its own), its attempts (JSON), act (of
-- `record`).
-- Returns: 'retried'; or, with nothing changed, 'gone' (it was retried or dropped), 'lost' (its message
-- does not exist) or 'answered' (its task has another result since).
local letter, queue, attempts = ARGV[1], ARGV[2], ARGV[3]
local row = redis.call('XRANGE', 'dead', letter, letter)[1]
if not row then return 'gone' end
local entry = redis.call('HGET', 'dead:messages', letter)
if not entry then return 'lost' end
local fields = {}
for i = 1, #row[2], 2 do fields[row[2][i]] = row[2][i + 1] end

if fields.task_id ~= '' then
  local task, result = 'task:' .. fields.task_id, RESULT .. fields.task_id
  local existing = redis.call('GET', result)
  if existing and existing ~= fields.result then return 'answered' end
  redis.call('DEL', result)
  if redis.call('EXISTS', task) == 0 then -- else its id was enqueued again, and has a history
    redis.call('HSET', task, 'attempts', attempts, 'enqueued_ms', now_ms(), 'numbered', fields.numbered or 0)
    redis.call('PEXPIRE', task, TASK_TTL_MS)
  end
end
local list, message = split_entry(entry)
if queue ~= '' then list = queue .. string.sub(list, #queue_of(list) + 1) end
redis.call('LPUSH', list, message)
wake_workers(queue_of(list), 1)
redis.call('XDEL', 'dead', letter)
redis.call('HDEL', 'dead:messages', letter)
record(ARGV[4], fields.task_id ~= '' and fields.task_id or letter, now_ms())
return 'retried'
