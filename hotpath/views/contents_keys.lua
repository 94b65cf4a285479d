-- What is wrong with keys of the live generation: {'OK', fault, fault, ...} in their order, '' for none, else
-- 'type', 'orphan' (its list does not have it) or 'unknown'. ARGV: generation, payload {name, name, ...}.
local names = cmsgpack.unpack(ARGV[2])
if live_generation() ~= ARGV[1] then return { 'MOVED' } end
local listed = { pages = { 'hash', 'steps' } }

local function fault_of(name)
  local full = key(ARGV[1], name)
  if redis.call('EXISTS', full) == 0 then return '' end -- gone since it was found
  if TYPES[name] then return is_type(full, TYPES[name]) and '' or 'type' end
  local colon = string.find(name, ':', 1, true)
  local kind = colon and listed[string.sub(name, 1, colon - 1)]
  if not kind then return 'unknown' end
  if not is_type(full, kind[1]) then return 'type' end
  local list = key(ARGV[1], kind[2])
  if not is_type(list, 'zset') then return '' end -- named for itself
  return redis.call('ZSCORE', list, string.sub(name, colon + 1)) and '' or 'orphan'
end

local faults = { 'OK' }
for _, name in ipairs(names) do faults[#faults + 1] = fault_of(name) end
return faults
