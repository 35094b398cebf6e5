-- Read the state of all queues and workers at one moment; of each list only its length and its last
-- message.
-- ARGV: names of queues that no worker may have consumed yet.
-- Returns: now (ms); of each queue its name, how many messages wait, when the next one was enqueued (ms;
-- empty if its producer did not write that); then `delayed:queues`, `paused`, `parked`, `workers`,
-- `draining`.
local STEPS = {'', '\6\0220', '\6\0223', '\6\0226', '\6\0229'} -- the suffix of each priority's list
local LAST = 8192 -- the headers follow the body, within this many bytes of the end

local known, names = {}, {}
local function know(list)
  for _, name in ipairs(list) do
    if not known[name] then
      known[name] = true
      names[#names + 1] = name
    end
  end
end
know(ARGV)
know(redis.call('SMEMBERS', 'queues'))
for _, hash in ipairs({'delayed:queues', 'paused', 'parked'}) do know(redis.call('HKEYS', hash)) end
table.sort(names)

local rows = {}
for _, name in ipairs(names) do
  local depth, oldest = 0, nil
  for _, step in ipairs(STEPS) do
    depth = depth + redis.call('LLEN', name .. step)
    local next_one = redis.call('LINDEX', name .. step, -1)
    local at = next_one and tonumber(string.match(string.sub(next_one, -LAST), '"enqueued_ms":%s*(%d+)'))
    if at and (not oldest or at < oldest) then oldest = at end
  end
  rows[#rows + 1] = {name, depth, oldest and string.format('%.0f', oldest) or ''}
end
return {now_ms(), rows, redis.call('HGETALL', 'delayed:queues'), redis.call('HGETALL', 'paused'),
  redis.call('HGETALL', 'parked'), redis.call('HGETALL', 'workers'), redis.call('HGETALL', 'draining')}
