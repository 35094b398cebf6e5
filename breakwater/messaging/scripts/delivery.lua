-- The part that all scripts of the delivery share; each begins with it. All keys are in one database:
--
-- celery, role.NAME      list    Celery's own queues: pushed on the left, taken from the right; each
--                                of the priorities 0, 3, 6 and 9 has its own list, marked with "\6\22"
--                                and the number; messages without a priority come after 3 and before 6
-- bell:QUEUE             list    one entry wakes one idle worker; at most MAX_WAKEUPS are kept
-- taken                  hash    delivery tag -> the list it came from, "\n", the message
-- taken:until            zset    delivery tag -> ms at which the message is requeued unless its lease is renewed
-- begun                  hash    delivery tag -> task id, of deliveries whose task runs
-- task:ID                hash    the history of an unsettled task, over its deliveries:
--     fence              the time (ms) of its newest beginning, or more; only its holder settles
--     tag                the delivery that runs it, while one does
--     calling            the call whose end is awaited: its row for the ledger, if it is lost. Workers of version
--                        0.1 look here alone, so the first call that is out is always here
--     attempt_out        the attempt that `calling` belongs to
--     calling:N          a further call that is out at the same time: that of attempt N
--     lost_calls         calls whose end was never reported, a line each: their worker was lost, or stopped
--     failed             attempts of a walk that has not ended, a line each (JSON)
--     numbered           how many attempts have a number
--     unknown            how many of `lost_calls` no other call has followed yet
--     duplicates         how many another call has followed: those may have been paid twice
--     lost               workers that were lost while they held it
--     lost_alone         how many of them held nothing else
--     company            how many tasks the last of them held
--     suspect            1 from the second loss on: until it is settled it runs alone, also after a wait
--     accused            1 while the last of them was lost alone, and not the first, with its call out
--     blamed             1 from then on: a provider is accused once by each task
--     attempts, repeats  attempts of earlier walks of the chain (JSON), and how often an error of ours was retried
--     enqueued_ms        its deadline runs from here: set when it first waits, and when a dead letter is
--                        retried
--     told, telling      how many batches its stream has; 1 while the last one is of an unfinished answer
--     flight             the digest of the call that it makes, or that another task makes for it
--     aside              where it waits for that: its queue, "\n", the delivery tag
-- asked:ID               string  of a task whose id its caller has chosen: a digest of what it asks; as long
--                                as its result, or 30 days
-- stream:ID              stream  the partial answer of a streamed task (`breakwater/asking/events.py`)
-- cache:DIGEST           string  an answer (`tasks/answering/response_cache.py`), for as long as its role keeps it; empty:
--                                answers to this call are not kept
-- flight:DIGEST          string  the task that makes this call, as long as a worker holds it
-- flight:DIGEST:waiting  zset    tasks that wait for its answer -> ms since when
-- flights                zset    delivery tag -> ms, as in `delayed`, of tasks that wait for such an answer
-- delayed                zset    delivery tag -> ms at which its message goes to its list again
-- delayed:messages       hash    as `taken`
-- delayed:queues         hash    queue -> how many of those are its own
-- apart                  hash    delivery tag -> as `taken`, of tasks with which two workers were lost; a worker
--                                takes them when it holds nothing else; also in `delayed:queues`
-- apart:order            zset    delivery tag -> ms since when
-- apart:workers          hash    worker -> drains (it finishes what it holds, to run them) or runs
-- parked                 hash    queue -> JSON: until_ms, for_ms, since_ms, reason, few, passed
-- parked:events          stream  one entry for each queue parked and opened again
-- paused                 hash    queue -> JSON: who, at_ms, why; only an operator pauses and resumes
-- workers                hash    worker -> JSON: its description (`workers/heartbeat.py`)
-- workers:until          zset    worker -> ms at which it is removed unless its heartbeat renews it
-- roles                  hash    version of a roles file -> JSON: what its workers serve, for producers
--     roles              name -> parameters that it refuses, and why
--     any                true: they serve every role
-- roles:until            zset    version -> ms at which it is removed unless a heartbeat renews it
-- draining               hash    worker -> JSON: who, at_ms; it takes nothing more, finishes and ends
-- queues                 set     names of the queues that any worker has ever consumed
-- operations             stream  about MAX_OPERATIONS: what operators did; the fields of each:
--     at_ms, who, what   such as 1763700000000, ann@host, pause
--     targets, number    the names of what was changed, a line each (at most 20); how many
--     details            JSON
--     command            a unique id of the command that did it
-- foreign                hash    name of a task that workers do not have -> the queue it was found in
-- foreign:DIGEST         zset    SHA-1 of its message -> ms until which workers whose tasks have this
--                                digest pass over it
-- dead                   stream  dead letters, of the last 30 days; the fields of each:
--     task_id            empty if the message names no usable one
--     at_ms, role, queue, error, message (of the error)
--     attempts, options  JSON; the prompt is in the message alone
--     numbered           how many attempts had a number
--     result             SHA-1 of the result that was written with it; empty if none was
-- dead:messages          hash    letter -> list and message, as `taken`
-- ledger                 stream  rows of attempts, until a worker has drained them into the database:
--     row                JSON; ciphertext if there are keys
-- delivery               hash    counts since ever: recovered, restored, duplicates, superseded, dead
-- delivery:clock         hash    swept_ms (last search for lost messages), calm_ms (no message is lost
--                                before), data (a name for the data in this Redis; another name: the old
--                                data is lost)
local MAX_WAKEUPS, TASK_TTL_MS, MAX_EVENTS = 8, 30 * 24 * 3600 * 1000, 1000
local FOREIGN_TTL_MS, MAX_ROTATED = 24 * 3600 * 1000, 200
local MAX_OPERATIONS, MAX_TARGETS = 10000, 20
local LETTER_TTL_MS = 30 * 24 * 3600 * 1000
local RESULT = 'celery-task-meta-'
-- A task that waits for another's answer checks this often; of thousands, 50 a second do.
local RECHECK_MS, RECHECK_SPACING_MS, MAX_RECHECK_MS = 15000, 20, 300000
-- A task is given up after MAX_LOST lost workers, of which MAX_ALONE held nothing else.
local MAX_LOST, MAX_ALONE = 5, 3
-- A task that was lost with few others runs alone; of a larger group, one part in this many runs together.
local GROUP_DIVISOR = 16
local MAX_ISOLATED_SCANNED = 100 -- isolated messages read in one step
local WAKE_FOR_CALL, WAKE_FOR_ANSWER = 8, 100 -- tasks woken in one step: to make the call, or to have its answer
local TAKEN, UNTIL, BEGUN, DELAYED, MESSAGES = 'taken', 'taken:until', 'begun', 'delayed', 'delayed:messages'

-- A full server refuses a script if its first write may take memory, and permits it if its first write frees
-- some (even none). Scripts that empty the server must run.
redis.call('HDEL', BEGUN, '')

-- The time of Redis' clock; no client's clock decides anything.
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function queue_of(list)
  return string.match(list, '^(.-)\6\22%d+$') or list
end

local function wake_workers(queue, times)
  local bell = 'bell:' .. queue
  -- If this key belongs to another program, workers wait a second longer, but the step is done.
  for _ = 1, times do redis.pcall('LPUSH', bell, 1) end
  redis.pcall('LTRIM', bell, 0, MAX_WAKEUPS - 1)
end

-- Run a command on a key that may belong to another program; return nil then, as if nothing were set.
local function call_or_nil(...)
  local reply = redis.pcall(...)
  return not (type(reply) == 'table' and reply.err) and reply or nil
end

-- Return a message's list and the message, from its entry in a hash.
local function split_entry(entry)
  local stop = string.find(entry, '\n', 1, true)
  return string.sub(entry, 1, stop - 1), string.sub(entry, stop + 1)
end

local function forget(tag)
  redis.call('HDEL', TAKEN, tag)
  redis.call('ZREM', UNTIL, tag)
  redis.call('HDEL', BEGUN, tag)
end

-- Return whether no other delivery has begun this task since the one with this fence, so that this one counts;
-- and whether Redis has lost that beginning with its data. Fences grow with time, so a smaller one is older, from
-- an older replica. No delivery owns a task with a result.
local function owns(task, result, fence)
  local newest, mine = tonumber(redis.call('HGET', task, 'fence') or 0), tonumber(fence)
  if newest >= mine then return newest == mine, false end
  if redis.call('EXISTS', result) == 1 then return false, false end
  return true, true
end

-- Return the id in a message's headers, or nil. Inside a body each quote is escaped.
local function id_in(entry)
  local headers = string.find(entry, '"headers":', 1, true)
  local id = headers and string.match(entry, '"id":%s*"([^"]+)"', headers)
  local is_text, words = pcall(cjson.decode, '["' .. (id or '') .. '"]')
  return is_text and words[1] ~= '' and words[1] or nil
end

-- Return the key under which a message's lost workers are counted: its task's id, or a checksum without an id.
local function loss_key(entry)
  local id, sum = id_in(entry), 0
  if id then return id end
  for i = 1, math.min(#entry, 4096) do sum = (sum * 33 + string.byte(entry, i)) % 4294967296 end
  return string.format('?%.0f.%.0f', #entry, sum)
end

-- Put a message aside; a worker takes it when it holds nothing else.
local function isolate(tag, entry)
  redis.call('HSET', 'apart', tag, entry)
  redis.call('ZADD', 'apart:order', now_ms(), tag)
  redis.call('HINCRBY', 'delayed:queues', queue_of((split_entry(entry))), 1)
end

-- Put a message at the head of a list, where it is taken next; a suspect is isolated instead.
local function to_head(task, tag, list, message)
  if redis.call('HEXISTS', task, 'suspect') == 1 then
    isolate(tag, list .. '\n' .. message)
  else
    redis.call('RPUSH', list, message)
  end
end

-- Return a message to the list that it came from.
local function requeue(tag, entry)
  local list, message = split_entry(entry)
  to_head('task:' .. loss_key(entry), tag, list, message)
  wake_workers(queue_of(list), 1)
end

-- Return a message to its role's queue, whichever queue it came from, in the list of its priority.
local function to_queue(queue, task, tag, entry)
  local list, message = split_entry(entry)
  to_head(task, tag, queue .. string.sub(list, #queue_of(list) + 1), message)
end

-- Append rows of attempts for the ledger. A delivery that was superseded adds only the rows of its calls: the
-- numbers of its other attempts belong to the other delivery.
local function append_rows(first, owned)
  for i = first, #ARGV do
    if owned or string.sub(ARGV[i], 1, 1) == 'c' then
      redis.call('XADD', 'ledger', '*', 'row', string.sub(ARGV[i], 2))
    end
  end
end

-- Keep a message out of its list until it is due.
local function delay_until(tag, entry, due)
  redis.call('HSET', MESSAGES, tag, entry)
  redis.call('ZADD', DELAYED, due, tag)
  redis.call('HINCRBY', 'delayed:queues', queue_of((split_entry(entry))), 1)
end

-- The fields of the calls whose end a task awaits, by the number of their attempt.
local function calls_out(task)
  local fields = {}
  for _, field in ipairs(redis.call('HKEYS', task)) do
    if string.find(field, '^calling') then fields[#fields + 1] = field end
  end
  table.sort(fields, function(a, b)
    return #a == #b and a < b or #a < #b
  end)
  return fields
end

-- The field of an attempt's call, if it is out.
local function field_of_call(task, number)
  if redis.call('HGET', task, 'attempt_out') == tostring(number) then return 'calling' end
  return 'calling:' .. number
end

-- A call goes out; a repeated step changes nothing.
local function call_begins(task, number, row)
  local field = field_of_call(task, number)
  if field == 'calling' or redis.call('HEXISTS', task, 'calling') == 0 then
    redis.call('HSET', task, 'calling', row, 'attempt_out', number)
  else
    redis.call('HSET', task, field, row)
  end
end

-- A call has ended. Returns whether it was out: false if this step is repeated.
local function call_ends(task, number)
  local field = field_of_call(task, number)
  if field == 'calling' then redis.call('HDEL', task, 'attempt_out') end
  return redis.call('HDEL', task, field) == 1
end

-- A delivery ends without an answer. If calls were out, it is unknown whether they have to be paid.
local function release(task)
  for _, field in ipairs(calls_out(task)) do
    local row = redis.call('HGET', task, field)
    redis.call('XADD', 'ledger', '*', 'row', row)
    local lost = redis.call('HGET', task, 'lost_calls')
    redis.call('HSET', task, 'lost_calls', lost and lost .. '\n' .. row or row)
    redis.call('HINCRBY', task, 'unknown', 1)
    redis.call('HDEL', task, field)
  end
  redis.call('HDEL', task, 'tag', 'attempt_out')
end

-- Return the task that makes this call now, in a living worker; nil if none does.
local function owner_of(digest)
  local id = redis.call('GET', 'flight:' .. digest)
  local task = id and redis.call('HMGET', 'task:' .. id, 'flight', 'tag')
  if task and task[1] == digest and task[2] and redis.call('HEXISTS', TAKEN, task[2]) == 1 then return id end
end

-- Requeue a bounded number of tasks that wait for this call's answer, and forget some that no longer exist. Each
-- task that then has the answer wakes as many again (`share`), so that no step is long.
local function wake_waiting_tasks(digest, most)
  local waiting, wakeups = 'flight:' .. digest .. ':waiting', {}
  for _, id in ipairs(redis.call('ZRANGE', waiting, 0, WAKE_FOR_ANSWER - 1)) do
    if most == 0 then break end
    redis.call('ZREM', waiting, id)
    local aside = redis.call('HGET', 'task:' .. id, 'aside')
    local queue, tag = split_entry(aside or '\n')
    if redis.call('HEXISTS', MESSAGES, tag) == 1 then
      redis.call('ZADD', DELAYED, 0, tag)
      redis.call('ZREM', 'flights', tag)
      wakeups[queue] = (wakeups[queue] or 0) + 1
      most = most - 1
    end
  end
  for queue, times in pairs(wakeups) do wake_workers(queue, math.min(times, MAX_WAKEUPS)) end
end

-- Detach a task from a call, and wake the tasks that wait: if there is an answer, to read it; if not, and no task
-- makes the call, to make it.
local function leave_shared_call(digest, id, answered)
  local flight = 'flight:' .. digest
  if redis.call('GET', flight) == id then redis.call('DEL', flight) end
  redis.call('ZREM', flight .. ':waiting', id)
  if answered then
    wake_waiting_tasks(digest, WAKE_FOR_ANSWER)
  elseif not owner_of(digest) then
    wake_waiting_tasks(digest, WAKE_FOR_CALL)
  end
end

local function count(what, by)
  redis.call('HINCRBY', 'delivery', what, by or 1)
end

-- Handle the loss of a worker that held this delivery. The cause may be another of its tasks. So after the second
-- loss the task runs alone, and only losses of a task alone count against it.
-- company: how many deliveries that worker held. is_child: it was a child of a prefork, which holds one.
-- Returns: the id of a task that is given up before it ever began; its delivery is still taken.
local function handle_lost_delivery(tag, entry, company, is_child, until_ms)
  local begun = redis.call('HGET', BEGUN, tag)
  local id = begun or loss_key(entry)
  local task, is_alone = 'task:' .. id, is_child or string.sub(tag, -1) == '!'
  if redis.call('EXISTS', RESULT .. id) == 1 then
    forget(tag)
    requeue(tag, entry)
    return
  end
  local lost = redis.call('HINCRBY', task, 'lost', 1)
  local alone = redis.call('HINCRBY', task, 'lost_alone', is_alone and 1 or 0)
  redis.call('HSET', task, 'company', company)
  if is_alone and lost > 1 and redis.call('HGET', task, 'tag') == tag
    and #calls_out(task) > 0 and redis.call('HSETNX', task, 'blamed', 1) == 1 then
    redis.call('HSET', task, 'accused', 1)
  end
  redis.call('PEXPIRE', task, TASK_TTL_MS)
  local is_given_up = lost >= MAX_LOST and alone >= MAX_ALONE
  if is_given_up and not begun then
    redis.call('ZADD', UNTIL, until_ms, tag)
    return id_in(entry) or ''
  end
  forget(tag)
  if is_given_up then -- a task that has begun is given up when it begins again, and kills no worker
    redis.call('HDEL', task, 'suspect')
  elseif lost > 1 and not is_child then
    redis.call('HSET', task, 'suspect', 1)
  end
  requeue(tag, entry)
end

local function log_parking(queue, to, until_ms, reason, now)
  redis.call('XADD', 'parked:events', 'MAXLEN', '~', MAX_EVENTS, '*', 'queue', queue, 'to', to,
    'until_ms', until_ms, 'reason', reason, 'at_ms', now)
end

-- Keep a message that cannot succeed, and its error; only the error if the message is no longer taken.
local function dead_letter(id, entry, fields, now, meta)
  count('dead')
  local letter = redis.call('XADD', 'dead', '*', 'task_id', id, 'at_ms', now,
    'queue', entry and queue_of((split_entry(entry))) or '',
    'result', meta, unpack(fields))
  if entry then redis.call('HSET', 'dead:messages', letter, entry) end
end

-- Record what an operator does, in the same step. A command with many targets has one entry that grows, so that
-- a thousand retried letters leave room for earlier entries.
-- act: JSON: command, who, what, details (JSON).
local function record(act, target, now)
  local change, targets, number = cjson.decode(act), target, 1
  for _, entry in ipairs(redis.call('XREVRANGE', 'operations', '+', '-', 'COUNT', 8)) do
    local fields = {}
    for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
    if fields.command == change.command then
      redis.call('XDEL', 'operations', entry[1])
      number = fields.number + 1
      targets = number > MAX_TARGETS and fields.targets or fields.targets .. '\n' .. target
    end
  end
  redis.call('XADD', 'operations', 'MAXLEN', '~', MAX_OPERATIONS, '*', 'at_ms', now, 'who', change.who,
    'what', change.what, 'targets', targets, 'number', number, 'details', change.details, 'command', change.command)
end
