-- Forget messages that are done with. One whose task has begun and has neither a result nor a place
-- to wait goes back to its list: whatever dropped it, it is not done.
-- ARGV: tags. Returns: how many went back.
local number = 0
for _, tag in ipairs(ARGV) do
  local entry = redis.call('HGET', TAKEN, tag)
  local id = redis.call('HGET', BEGUN, tag)
  forget(tag)
  if entry and id and redis.call('HGET', 'task:' .. id, 'tag') == tag then
    redis.call('HINCRBY', 'task:' .. id, 'lost', 1) -- by nobody's doing but its own
    redis.call('HINCRBY', 'task:' .. id, 'lost_alone', 1)
    requeue(tag, entry)
    number = number + 1
  end
end
return number
