-- How does it stand? Writes nothing.
read()
return view(1, 0)
