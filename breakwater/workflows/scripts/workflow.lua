-- What every script of the workflows shares; it stands in front of each. All in one database:
--
-- workflow:ID            hash    one run:
--     name               of its workflow; empty for one written in code without a name
--     state              pending, running, succeeded, failed, cancelled
--     created_ms         when it was begun
--     ended_ms           when it came to an end; not there while it has none
--     turns              how many turns have begun
--     out                how many of them run
--     sent               the task id that was enqueued last
--     error              the class of the error that it failed with
--     turn:KEY           one for each turn, KEY is STAGE:ROUND:TRY; JSON: state, stage, round, try,
--                        role, number (among those that have begun), task_id, who, began_ms,
--                        ended_ms, and what its end came to
--     told:KEY           set once its line is in the log
-- workflow:ID:answers    hash    what it says, sealed if there are keys: definition, input, error, and
--                                one field for each turn's answer, KEY
-- workflow:ID:events     stream  one entry for each transition: what (run, or KEY), from, to, who, at_ms
-- workflows              zset    run -> ms at which it was created
--
-- All of a run lives LIVES_MS after its last transition: longer than a stage may take.
local LIVES_MS, EVENTS, STALE = 60 * 24 * 3600 * 1000, 10000, 10
local INDEX = 'workflows'
local RUN, ANSWERS, STREAM = KEYS[1], KEYS[2], KEYS[3]

-- Which transitions there are, and no others.
local LEGAL = {
  run = {
    none = {pending = true},
    pending = {running = true, failed = true, cancelled = true},
    running = {succeeded = true, failed = true, cancelled = true},
    failed = {running = true}, cancelled = {running = true}, -- it is resumed
    succeeded = {},
  },
  turn = {
    none = {pending = true},
    pending = {running = true},
    running = {succeeded = true, failed = true, cancelled = true},
    failed = {}, cancelled = {}, succeeded = {}, -- another try is another turn
  },
}

local OVER = {succeeded = true, failed = true, cancelled = true}

-- Redis' own clock; no client's decides anything.
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function tell(what, from, to, who, now)
  redis.call('XADD', STREAM, 'MAXLEN', '~', EVENTS, '*', 'what', what, 'from', from, 'to', to,
    'who', who, 'at_ms', now)
end

local function turn_of(key)
  local told = redis.call('HGET', RUN, 'turn:' .. key)
  return told and cjson.decode(told) or {state = 'none'}
end

local function live()
  for _, key in ipairs({RUN, ANSWERS, STREAM}) do redis.call('PEXPIRE', key, LIVES_MS) end
end
