-- Make transitions of a run, of its stage runs ("turns"), or of both: all of them, or none.
-- ARGV: who, moves (JSON: what (run, or KEY), from, to, facts), then for the answers: field, value, …
-- Returns: empty, or the reason of the refusal.
-- A turn is prepared or begun only if the run is running after the transitions; it ends only if the run
-- was running before them. No run ends while one of its turns runs.
local who, moves, now = ARGV[1], cjson.decode(ARGV[2]), now_ms()
local before = redis.call('HGET', RUN, 'state') or 'none'
local state, turns, steps = before, {}, {}
local out = tonumber(redis.call('HGET', RUN, 'out') or 0)
if before == 'none' then return 'there is no such run' end
for _, move in ipairs(moves) do
  local is_run = move.what == 'run'
  local turn = not is_run and (turns[move.what] or turn_of(move.what))
  local from = is_run and state or turn.state
  if from ~= move.from then return move.what .. ' is ' .. from .. ', not ' .. move.from end
  local legal = LEGAL[is_run and 'run' or 'turn'][from]
  if not (legal and legal[move.to]) then
    return move.what .. ' cannot go from ' .. from .. ' to ' .. move.to
  end
  if is_run then
    state = move.to
  else
    for name, value in pairs(move.facts) do turn[name] = value end
    turn.state = move.to
    turns[move.what] = turn
    out = out + (move.to == 'running' and 1 or from == 'running' and -1 or 0)
  end
  steps[#steps + 1] = move
end
for _, move in ipairs(steps) do
  local rules = (move.to == 'pending' or move.to == 'running') and state or before
  if move.what ~= 'run' and rules ~= 'running' then return 'the run is ' .. rules end
end
if out > 0 and OVER[state] then return 'a turn runs' end
for _, move in ipairs(steps) do
  local turn = turns[move.what]
  append_event(move.what, move.from, move.to, who, now)
  if turn and move.to == 'running' then
    turn.number, turn.began_ms, turn.who = redis.call('HINCRBY', RUN, 'turns', 1), now, who
  elseif turn and move.to ~= 'pending' then
    turn.ended_ms, turn.who = now, who
  elseif move.what == 'run' then
    redis.call('HSET', RUN, 'state', move.to)
    if move.to == 'running' then
      redis.call('HDEL', RUN, 'ended_ms', 'error')
      redis.call('HDEL', ANSWERS, 'error')
    else
      redis.call('HSET', RUN, 'ended_ms', now)
    end
    for name, value in pairs(move.facts) do redis.call('HSET', RUN, name, value) end
  end
end
redis.call('HSET', RUN, 'out', out)
for key, turn in pairs(turns) do redis.call('HSET', RUN, 'turn:' .. key, cjson.encode(turn)) end
if #ARGV > 2 then redis.call('HSET', ANSWERS, unpack(ARGV, 3)) end
extend_life()
return ''
