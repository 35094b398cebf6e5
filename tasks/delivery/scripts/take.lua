-- Take messages: each leaves its list and enters `taken` in one step, so a worker that dies before it reads
-- the reply loses nothing.
-- KEYS: the lists, those of one priority side by side. ARGV: JSON: prefix (of the tags: the worker, a dot,
-- a number), max (messages), lease_ms (how long a take lasts), max_bytes, queues (their number), trial_ms
-- (how long the first tasks of a parked queue have), held (deliveries that the worker holds), tasks (digest
-- of the tasks that it has; empty: it passes over no message).
-- Returns: tag, list, message of each, and at the end, if there are some, now (ms).
local args = cjson.decode(ARGV[1])
local prefix, most, lease_ms, max_bytes = args.prefix, args.max, args.lease_ms, args.max_bytes
local queues, trial_ms = args.queues, args.trial_ms
local now = now_ms()
-- If these keys belong to another program, the script fails here, before a message leaves its list.
redis.call('HLEN', TAKEN)
redis.call('ZCARD', UNTIL)

for _, tag in ipairs(redis.call('ZRANGEBYSCORE', DELAYED, '-inf', now, 'LIMIT', 0, 100)) do
  local entry = redis.call('HGET', MESSAGES, tag)
  redis.call('ZREM', DELAYED, tag)
  redis.call('HDEL', MESSAGES, tag)
  if entry then
    redis.call('HINCRBY', 'delayed:queues', queue_of((split_entry(entry))), -1)
    requeue(tag, entry)
  end
end
if call_or_nil('HEXISTS', 'draining', string.match(prefix, '^[^.]*')) == 1 then return {} end

local parked, flat = {}, redis.call('HGETALL', 'parked')
for i = 1, #flat, 2 do parked[flat[i]] = cjson.decode(flat[i + 1]) end

local paused = {}
for _, queue in ipairs(call_or_nil('HKEYS', 'paused') or {}) do paused[queue] = true end

-- A paused queue is closed until an operator resumes it. A parked queue is closed until its time; then a few
-- messages may be taken, to find out whether a target is back.
local function may_pass(queue)
  if paused[queue] then return false end
  local state = parked[queue]
  -- If it is parked for longer than planned, the clock was set back.
  return not state or now >= state.until_ms or state.until_ms - now > state.for_ms
end

local function passed(queue)
  local state = parked[queue]
  if not state then return end
  state.passed = state.passed + 1
  if state.passed >= state.few then
    state.passed, state.until_ms, state.for_ms = 0, now + trial_ms, trial_ms
  end
  redis.call('HSET', 'parked', queue, cjson.encode(state))
end

-- Return the next message of a list. Messages that workers with the same tasks have left to others move to
-- the tail, a bounded number in one step.
local foreign = args.tasks ~= '' and 'foreign:' .. args.tasks
local rotates = foreign and redis.call('EXISTS', foreign) == 1 and MAX_ROTATED or 0
local function next_of(list)
  local first
  while true do
    local message = call_or_nil('RPOP', list)
    if not message or rotates == 0 then return message end
    local until_ms = tonumber(redis.call('ZSCORE', foreign, redis.sha1hex(message)) or 0)
    if until_ms <= now or until_ms > now + FOREIGN_TTL_MS then return message end
    redis.call('LPUSH', list, message)
    rotates = rotates - 1
    if message == first or rotates == 0 then return nil end
    first = first or message
  end
end

local taken, number = {}, 0
local function take(tag, list, message)
  redis.call('HSET', TAKEN, tag, list .. '\n' .. message)
  redis.call('ZADD', UNTIL, now + lease_ms, tag)
  passed(queue_of(list))
  taken[#taken + 1], taken[#taken + 2], taken[#taken + 3] = tag, list, message
end

-- Return the isolated messages of these queues that may run now, the oldest first: tag, entry, group size. A
-- queue that opens after it was parked is tried with its other messages first, if it has some.
local function isolated()
  local mine, found = {}, {}
  for _, list in ipairs(KEYS) do
    local queue = queue_of(list)
    local state = parked[queue]
    local is_tried = state and now - state.until_ms < trial_ms and (call_or_nil('LLEN', list) or 0) > 0
    mine[queue] = mine[queue] ~= false and not is_tried
  end
  local oldest = redis.call('ZRANGE', 'apart:order', 0, MAX_ISOLATED_SCANNED - 1)
  for _, tag in ipairs(oldest) do
    local entry = redis.call('HGET', 'apart', tag)
    local queue = queue_of((split_entry(entry)))
    if mine[queue] and may_pass(queue) then
      local company = tonumber(redis.call('HGET', 'task:' .. loss_key(entry), 'company') or 1)
      found[#found + 1] = {tag, entry, math.max(1, math.floor(company / GROUP_DIVISOR))}
    end
  end
  if #found == 0 and #oldest == MAX_ISOLATED_SCANNED then -- the next take reads those behind them
    for _, tag in ipairs(oldest) do redis.call('ZADD', 'apart:order', now, tag) end
  end
  return found
end

-- Return whether this worker takes nothing else now. Half of the workers, at least one, finish what they hold
-- for the isolated tasks; then each such worker runs one of them alone, or a few together.
local function stands_apart(worker, held)
  local state = call_or_nil('HGET', 'apart:workers', worker)
  if not state and redis.call('EXISTS', 'apart') == 0 then return false end
  if state == 'runs' and held > 0 then return true end
  local found = isolated()
  if #found == 0 then
    redis.call('HDEL', 'apart:workers', worker)
    return false
  end
  if not state and redis.call('HLEN', 'apart:workers') >= math.max(1, math.ceil((call_or_nil('HLEN', 'workers') or 1) / 2)) then
    return false
  end
  redis.call('HSET', 'apart:workers', worker, held > 0 and 'drains' or 'runs')
  if held > 0 then return true end
  local few, bound = {}, most
  for _, one in ipairs(found) do
    if math.min(bound, one[3]) > #few then
      bound = math.min(bound, one[3])
      few[#few + 1] = one
    end
  end
  for i, one in ipairs(few) do
    local list, message = split_entry(one[2])
    redis.call('HDEL', 'apart', one[1])
    redis.call('ZREM', 'apart:order', one[1])
    redis.call('HINCRBY', 'delayed:queues', queue_of(list), -1)
    take(prefix .. ':' .. i .. (#few == 1 and '!' or ''), list, message)
  end
  return true
end
if stands_apart(string.match(prefix, '^[^.]*'), args.held) then
  if #taken > 0 then taken[#taken + 1] = string.format('%.0f', now) end
  return taken
end

for first = 1, #KEYS, queues do
  local found = true
  while found and number < most do
    found = false
    for i = first, first + queues - 1 do
      local list = KEYS[i]
      local queue = queue_of(list)
      local message = number < most and may_pass(queue) and next_of(list)
      if message then
        found, number = true, number + 1
        local tag = prefix .. ':' .. number
        if #message > max_bytes then
          dead_letter('', list .. '\n' .. message, {'error', 'MessageTooLarge', 'message',
            'a message of ' .. #message .. ' bytes; at most ' .. string.format('%.0f', max_bytes) .. ' are taken'}, now, '')
        else
          take(tag, list, message)
        end
      end
    end
  end
end
if #taken > 0 then taken[#taken + 1] = string.format('%.0f', now) end
return taken
