-- Makes an operator's change.
-- args: to (open | half-open | closed: the new state; empty: keep it), forced (open | closed: set `forced`;
-- none: remove it; empty: keep it), open_ms (open time)
-- Closing a closed breaker without failures makes no transition. Returns 1.
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
