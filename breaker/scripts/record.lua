-- How did the call end?
-- ARGV[3] token   ARGV[4] generation at its admission   ARGV[5] success | failure | neutral
-- ARGV[6] reason, the class of its error   ARGV[7] Retry-After in ms, 0 if none   ARGV[8] 1: one is proof
-- ARGV[9] success_threshold   ARGV[10] fail_max
-- ARGV[11] open time in ms   ARGV[12] its factor per trip in a row   ARGV[13] its cap in ms
-- ARGV[14] its jitter, a factor   ARGV[15] ms in closed after which a trip in a row is forgiven
-- Answers 1 if the outcome counted, 0 if it was stale.
local token, generation, outcome, reason = ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local retry_after_ms, proof = tonumber(ARGV[7]), ARGV[8] == '1'
local threshold, fail_max = tonumber(ARGV[9]), tonumber(ARGV[10])
local open_ms, factor, cap_ms = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local jitter, stable_ms = tonumber(ARGV[14]), tonumber(ARGV[15])

read_or_rebuild()
if generation ~= b.generation or b.state == 'open' or (b.state == 'half-open' and not leases[token]) then
  b.stale = b.stale + 1
  dirty = true
  return answer(0, 0)
end
if leases[token] then
  end_lease(token)
  dirty = true
end

if now + retry_after_ms > math.max(now, b.held_until_ms) then
  b.held_until_ms, b.held_for_ms, dirty = now + retry_after_ms, retry_after_ms, true
  if b.state == 'closed' then b.reason = 'throttled' end
end

if outcome == 'failure' then
  b.failures = b.failures + 1
  dirty = true
  if b.state == 'half-open' or proof or b.failures >= fail_max then
    if b.state == 'closed' then
      b.trips = math.max(0, b.trips - math.floor(math.max(0, now - b.since_ms) / stable_ms))
    end
    local planned = math.floor(math.min(open_ms * factor ^ b.trips, cap_ms) * jitter)
    b.trips = b.trips + 1
    open(planned, reason)
  end
elseif outcome == 'success' and b.state == 'half-open' then
  b.successes, b.failures = b.successes + 1, 0
  if b.successes >= threshold then close('recovered') end
elseif outcome == 'success' and (b.failures > 0 or relieved) then
  b.failures, dirty = 0, true
end
return answer(1, 0)
