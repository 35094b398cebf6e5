-- Precedes every Lua script that is loaded while BREAKWATER_PREFIX is set; see `prefix.py`.
-- Inside the script KEYS have no prefix; `redis.call` adds it to the keys and channels in its arguments.
local redis, KEYS = (function(own, declared)
  local prefix = PREFIX
  local every = {del = true, exists = true, mget = true, unlink = true}
  local none = {evalsha = true}
  local keys = {}
  for i, key in ipairs(declared) do keys[i] = string.sub(key, #prefix + 1) end
  local function prefixed(command, key, ...)
    local name = string.lower(command)
    if key == nil then return command end
    if none[name] then return command, key, ... end
    if name == 'xread' then
      local words = {key, ...}
      local first = 1
      while string.lower(words[first]) ~= 'streams' do first = first + 1 end
      for i = first + 1, first + (#words - first) / 2 do words[i] = prefix .. words[i] end
      return command, unpack(words)
    end
    if not every[name] then return command, prefix .. key, ... end
    local words = {key, ...}
    for i, word in ipairs(words) do words[i] = prefix .. word end
    return command, unpack(words)
  end
  local wrapped = {
    call = function(...) return own.call(prefixed(...)) end,
    pcall = function(...) return own.pcall(prefixed(...)) end,
    acl_check_cmd = function(...) return own.acl_check_cmd(prefixed(...)) end,
  }
  return setmetatable(wrapped, {__index = own}), keys
end)(redis, KEYS)
