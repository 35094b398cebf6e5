-- Restarts the leases of probes that still run; an expired lease stays expired.
-- args: tokens
-- Returns the number of renewed leases.
local renewed = 0
if read() then
  for _, token in ipairs(args.tokens) do
    if leases[token] then
      leases[token], renewed, dirty = now + lease_ms, renewed + 1, true
    end
  end
end
return answer(renewed, 0)
