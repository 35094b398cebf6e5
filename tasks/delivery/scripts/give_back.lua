-- Put messages back to the heads of their lists: a worker stops, or lost its connection.
-- ARGV: 1 for those whose task runs as well, tags, the newest first.
-- Returns: how many went back.
local all, number = ARGV[1] == '1', 0
for i = 2, #ARGV do
  local tag = ARGV[i]
  local entry = redis.call('HGET', TAKEN, tag)
  local id = redis.call('HGET', BEGUN, tag)
  if entry and (all or not id) then
    if id and redis.call('HGET', 'task:' .. id, 'tag') == tag then let_go('task:' .. id) end
    forget(tag)
    put_back(entry)
    number = number + 1
  end
end
return number
