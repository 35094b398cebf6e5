-- Admits or refuses a call.
-- args: token (of the call), success_threshold, max_probes
-- Returns 1 (admitted; in half-open with a lease) or 0 (refused; the next attempt is in `wait_ms`).
local token, threshold, max_probes = args.token, args.success_threshold, args.max_probes

read_or_rebuild()
if b.forced == 'open' then return answer(0, 0) end
if b.forced == 'closed' then return answer(1, 0) end
if b.state == 'open' then
  if now < b.open_until_ms then return answer(0, b.open_until_ms - now) end
  half_open('due')
end
if leases[token] then return answer(1, 0) end
if b.held_until_ms > now then return answer(0, b.held_until_ms - now) end
if b.state == 'closed' then
  dirty = dirty or relieved -- a success may never come to save it
  return answer(1, 0)
end

-- At least one: a client with a smaller threshold than the counting one must not lock it for ever.
local room = math.max(1, math.min(max_probes, threshold - b.successes))
if live < room then
  leases[token] = now + lease_ms
  live = live + 1
  dirty = true
  return answer(1, 0)
end
local wait_ms = lease_ms
for _, expiry in pairs(leases) do wait_ms = math.min(wait_ms, expiry - now) end
return answer(0, wait_ms)
