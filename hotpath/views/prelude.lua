-- Stands in front of every script. KEYS[1] is the log's key `current`; all other keys share its hash tag.

local function key(generation, name)
  return string.sub(KEYS[1], 1, -8) .. generation .. ':' .. name -- less the 7 letters of `current`
end

-- The live generation, '' when there is none (a key of another type is none).
local function live_generation()
  if redis.call('TYPE', KEYS[1]).ok ~= 'string' then return '' end
  return redis.call('GET', KEYS[1])
end

local function is_type(name, wanted)
  local found = redis.call('TYPE', name).ok
  return found == wanted or found == 'none'
end
