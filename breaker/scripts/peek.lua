-- Returns the state of the breaker; writes nothing.
read()
return view(1, 0)
