-- Give a dead letter a second life, in one step: its error is forgotten, its deadline starts anew,
-- its message goes to the end of its queue, and the letter is no more.
-- ARGV: the letter, a queue instead of the message's own (empty: its own), its attempts (JSON), act (as
-- of `record`).
-- Returns: 'retried'; or, with nothing changed, 'gone' (somebody has retried or dropped it), 'lost'
-- (its message is not there) or 'answered' (its task has come to another result since).
local letter, queue, attempts = ARGV[1], ARGV[2], ARGV[3]
local found = redis.call('XRANGE', 'dead', letter, letter)[1]
if not found then return 'gone' end
local entry = redis.call('HGET', 'dead:messages', letter)
if not entry then return 'lost' end
local fields = {}
for i = 1, #found[2], 2 do fields[found[2][i]] = found[2][i + 1] end

if fields.task_id ~= '' then
  local task, result = 'task:' .. fields.task_id, RESULT .. fields.task_id
  local there = redis.call('GET', result)
  if there and there ~= fields.result then return 'answered' end
  redis.call('DEL', result)
  if redis.call('EXISTS', task) == 0 then -- else its id was queued again, and has a life already
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
