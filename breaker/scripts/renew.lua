-- These probes are still running: their leases begin again. One that has expired stays so.
-- args: tokens
-- Answers how many were renewed.
local renewed = 0
if read() then
  for _, token in ipairs(args.tokens) do
    if leases[token] then
      leases[token], renewed, dirty = now + lease_ms, renewed + 1, true
    end
  end
end
return answer(renewed, 0)
