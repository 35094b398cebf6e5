-- Put messages back to the heads of their lists.
-- ARGV: which ('waiting': those whose task has not begun; 'all': the worker stops; 'dead': who ran
-- them has died, and they may be the cause), tags, the newest first.
-- Returns: how many went back.
local which, number = ARGV[1], 0
for i = 2, #ARGV do
  local tag = ARGV[i]
  local entry = redis.call('HGET', TAKEN, tag)
  local id = redis.call('HGET', BEGUN, tag)
  if entry and (which ~= 'waiting' or not id) then
    if which == 'all' and id and redis.call('HGET', 'task:' .. id, 'tag') == tag then release('task:' .. id) end
    if which == 'dead' then
      handle_lost_delivery(tag, entry, 1, true, now_ms()) -- one that is given up is found by the next look
    else
      forget(tag)
      requeue(tag, entry)
    end
    number = number + 1
  end
end
return number
