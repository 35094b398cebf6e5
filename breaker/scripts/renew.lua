-- These probes are still running: their leases begin again. One that has expired stays so.
-- ARGV[3…] tokens
-- Answers how many were renewed.
local renewed = 0
if read() then
  for i = 3, #ARGV do
    if leases[ARGV[i]] then
      leases[ARGV[i]], renewed, dirty = now + lease_ms, renewed + 1, true
    end
  end
end
return answer(renewed, 0)
