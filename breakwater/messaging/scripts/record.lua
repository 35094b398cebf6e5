-- Write down what an operator is about to do where no script of ours can do it in the same step.
-- ARGV: act (as of `record`), what it is done to.
for i = 2, #ARGV do record(ARGV[1], ARGV[i], now_ms()) end
return #ARGV - 1
