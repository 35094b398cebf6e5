-- An operator's hand.
-- ARGV[3] open | half-open | closed: go there now; empty: stay
-- ARGV[4] open | closed: set `forced`; none: remove it; empty: leave it
-- ARGV[5] open time in ms
-- Closing a closed breaker that has nothing to forget is no transition. Answers 1.
local to, forced, open_ms = ARGV[3], ARGV[4], tonumber(ARGV[5])

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
