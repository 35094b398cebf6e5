-- The keys and functions that all scripts of workflows share; each script begins with this file.
-- A "turn" is one run of a stage. All keys are in one database:
--
-- workflow:ID            hash    one run:
--     name               of its workflow; empty if code defines it without a name
--     state              pending, running, succeeded, failed, cancelled
--     created_ms         when it was started
--     ended_ms           when it ended; absent before
--     turns              how many turns have begun
--     out                how many of them run
--     sent               the task id that was enqueued last
--     error              the class of the error with which it failed
--     turn:KEY           one for each turn, KEY is STAGE:ROUND:TRY; JSON: state, stage, round, try,
--                        role, number (among those that have begun), task_id, who, began_ms,
--                        ended_ms, and the facts of its end
--     told:KEY           set when its log line was written
-- workflow:ID:answers    hash    its content, encrypted if there are keys: definition, input, error, and
--                                one field for each turn's answer, KEY
-- workflow:ID:events     stream  one entry for each transition: what (run, or KEY), from, to, who, at_ms
-- workflows              zset    run -> ms at which it was created
--
-- All keys of a run expire LIVES_MS after its last transition: longer than a stage may take.
local LIVES_MS, EVENTS, STALE = 60 * 24 * 3600 * 1000, 10000, 10
local INDEX = 'workflows'
local RUN, ANSWERS, STREAM = KEYS[1], KEYS[2], KEYS[3]

-- All allowed transitions.
local LEGAL = {
  run = {
    none = {pending = true},
    pending = {running = true, failed = true, cancelled = true},
    running = {succeeded = true, failed = true, cancelled = true},
    failed = {running = true}, cancelled = {running = true}, -- `resume`
    succeeded = {},
  },
  turn = {
    none = {pending = true},
    pending = {running = true},
    running = {succeeded = true, failed = true, cancelled = true},
    failed = {}, cancelled = {}, succeeded = {}, -- another attempt is another turn
  },
}

local OVER = {succeeded = true, failed = true, cancelled = true}

-- The time by Redis' clock; clocks of clients are never used.
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function append_event(what, from, to, who, now)
  redis.call('XADD', STREAM, 'MAXLEN', '~', EVENTS, '*', 'what', what, 'from', from, 'to', to,
    'who', who, 'at_ms', now)
end

local function turn_of(key)
  local turn = redis.call('HGET', RUN, 'turn:' .. key)
  return turn and cjson.decode(turn) or {state = 'none'}
end

local function extend_life()
  for _, key in ipairs({RUN, ANSWERS, STREAM}) do redis.call('PEXPIRE', key, LIVES_MS) end
end
