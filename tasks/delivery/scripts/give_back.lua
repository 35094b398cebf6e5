-- Put messages back to the heads of their lists: a worker stops, or lost its connection.
-- ARGV: 1 for those whose task runs as well, tags, the newest first.
-- Returns: how many went back.
local all, number = ARGV[1] == '1', 0
for i = 2, #ARGV do
  local tag = ARGV[i]
  local entry = redis.call('HGET', TAKEN, tag)
  if entry and (all or redis.call('HEXISTS', BEGUN, tag) == 0) then
    forget(tag)
    put_back(entry)
    number = number + 1
  end
end
return number
