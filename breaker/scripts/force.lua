-- An operator's hand.
-- args: to (open | half-open | closed: go there now; empty: stay), forced (open | closed: set `forced`;
-- none: remove it; empty: leave it), open_ms (open time)
-- Closing a closed breaker that has nothing to forget is no transition. Answers 1.
local to, forced, open_ms = args.to, args.forced, args.open_ms

read_or_rebuild()
if to == 'open' then
  open(open_ms, 'manual')
elseif to == 'half-open' then
  half_open('manual')
elseif to == 'closed' then
  b.held_until_ms, b.held_for_ms = 0, 0
  if b.state ~= 'closed' or b.failures > 0 then
    b.trips = 0
    close('manual')
  end
  b.reason = ''
end
if forced == 'none' then
  b.forced = ''
  redis.call('HDEL', key, 'forced')
elseif forced ~= '' then
  b.forced = forced
  redis.call('HSET', key, 'forced', forced)
end
dirty = true
return answer(1, 0)
