-- Record what an operator is about to do, where no script of ours can do both in one step.
-- ARGV: act (of `record`), its targets.
for i = 2, #ARGV do record(ARGV[1], ARGV[i], now_ms()) end
return #ARGV - 1
