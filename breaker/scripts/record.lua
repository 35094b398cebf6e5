-- Counts the outcome of an admitted call.
-- args: token, generation (at the call's admission), outcome (success | failure | neutral), reason (the class
-- of its error), retry_after_ms (0: none), is_proof (one failure opens), success_threshold, fail_max, open_ms
-- (open time), factor (of the open time per trip in a row), cap_ms (the longest open time), jitter (a
-- factor), stable_ms (each such time in closed takes one trip off the count)
-- Returns 1 if the outcome was counted, 0 if it was stale.
local token, generation, outcome, reason = args.token, args.generation, args.outcome, args.reason
local retry_after_ms, proof = args.retry_after_ms, args.is_proof
local threshold, fail_max = args.success_threshold, args.fail_max
local open_ms, factor, cap_ms = args.open_ms, args.factor, args.cap_ms
local jitter, stable_ms = args.jitter, args.stable_ms

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
