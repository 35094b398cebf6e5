-- Return messages to the heads of their lists.
-- ARGV: which ('waiting': those whose task has not begun; 'all': the worker stops; 'dead': their runner has
-- died, perhaps because of them), tags, the newest first.
-- Returns: how many were returned.
local which, number = ARGV[1], 0
for i = 2, #ARGV do
  local tag = ARGV[i]
  local entry = redis.call('HGET', TAKEN, tag)
  local id = redis.call('HGET', BEGUN, tag)
  if entry and (which ~= 'waiting' or not id) then
    if which == 'all' and id and redis.call('HGET', 'task:' .. id, 'tag') == tag then release('task:' .. id) end
    if which == 'dead' then
      handle_lost_delivery(tag, entry, 1, true, now_ms()) -- the next `tend` finds a task that is given up
    else
      forget(tag)
      requeue(tag, entry)
    end
    number = number + 1
  end
end
return number
