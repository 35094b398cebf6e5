-- Take a turn at draining: one process does it at a time, so that one writes to a SQLite file.
-- KEYS: ledger (stream), ledger:drainer (string: who, for as long as the turn lasts). ARGV: who, how
-- long the turn lasts (ms), how many rows are wanted, ids of rows that are in the database now.
-- Returns: ids and rows, the oldest first; nil if it is another's turn.
local holder = redis.call('GET', KEYS[2])
for i = 4, #ARGV do redis.call('XDEL', KEYS[1], ARGV[i]) end
if holder and holder ~= ARGV[1] then
  -- The clock was set back: no turn lasts longer than one taken now.
  if redis.call('PTTL', KEYS[2]) > tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
  return false
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local rows = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[3])) do
  rows[#rows + 1] = entry[1]
  rows[#rows + 1] = entry[2][2]
end
return rows
