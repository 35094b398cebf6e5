-- Delete messages that are done. A message whose task has begun, but has neither a result nor a place to
-- wait, is requeued: something dropped it too early.
-- ARGV: tags. Returns: how many were requeued.
local number = 0
for _, tag in ipairs(ARGV) do
  local entry = redis.call('HGET', TAKEN, tag)
  local id = redis.call('HGET', BEGUN, tag)
  forget(tag)
  if entry and id and redis.call('HGET', 'task:' .. id, 'tag') == tag then
    redis.call('HINCRBY', 'task:' .. id, 'lost', 1) -- nothing else can be the cause
    redis.call('HINCRBY', 'task:' .. id, 'lost_alone', 1)
    requeue(tag, entry)
    number = number + 1
  end
end
return number
