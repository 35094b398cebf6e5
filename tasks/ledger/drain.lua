-- Become or stay the leader, and return rows: one process drains at a time, so that one process writes
-- to a SQLite file.
-- KEYS: ledger (stream), ledger:drainer (string: the leader, until its leadership expires). ARGV: this
-- process, the length of a leadership (ms), the number of rows wanted, then the ids of rows that the
-- database has stored since the last call, which are deleted.
-- Returns: ids and rows in turn, the oldest first; nil if another process is the leader.
local leader = redis.call('GET', KEYS[2])
for i = 4, #ARGV do redis.call('XDEL', KEYS[1], ARGV[i]) end
if leader and leader ~= ARGV[1] then
  -- After the clock was set back, no leadership lasts longer than a new one.
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
