-- Stands in front of every script. KEYS[1] is the log's key `current`; all other keys share its hash tag.

local call, byte, sub = redis.call, string.byte, string.sub

local function key(generation, name)
  return sub(KEYS[1], 1, -8) .. generation .. ':' .. name -- less the 7 letters of `current`
end

-- The live generation, '' when there is none (a key of another type is none).
local function live_generation()
  if call('TYPE', KEYS[1]).ok ~= 'string' then return '' end
  return call('GET', KEYS[1])
end

local function is_type(name, wanted)
  local found = call('TYPE', name).ok
  return found == wanted or found == 'none'
end

-- The parts of a generation beside the hashes pages:<step>; those of users; those of pages.
local TYPES = {
  state = 'hash', users = 'zset', seen = 'hash', slots = 'string', free = 'list', newest = 'hash', ranked = 'zset',
  pages = 'zset', steps = 'zset',
}
local OF_USERS = { 'users', 'seen', 'slots', 'free', 'newest', 'ranked' }
local OF_PAGES = { 'pages', 'steps' }

-- The first of these parts that is of another type, as its key and by its name; nil when all are what they must be.
local function wrong_part(generation, names)
  for _, name in ipairs(names) do
    local full = key(generation, name)
    if not is_type(full, TYPES[name]) then return full, name end
  end
  return nil
end

-- The number in four bytes, low end first; nil when there are fewer.
local function number_in(text, at)
  local a, b, c, d = byte(text, at, at + 3)
  if not d then return nil end
  return ((d * 256 + c) * 256 + b) * 256 + a
end

-- A function that tells the step in a slot, nil where there is none. slots_key: the key `slots` of a generation.
-- sessions: of how many one is about to ask: to read 4 KB costs as much as to ask for one.
local function steps_of(slots_key, sessions)
  local all = call('STRLEN', slots_key) < 4096 * sessions and call('GET', slots_key) or nil
  return function(slot)
    local step
    if all then
      step = number_in(all, 4 * slot + 1)
    else
      step = number_in(call('GETRANGE', slots_key, 4 * slot, 4 * slot + 3), 1)
    end
    return step ~= 0 and step or nil
  end
end

-- A session of a record of `seen`: its slot, and where its session_id begins and ends; nil when it is none.
local function session_at(record, at)
  local slot, length = number_in(record, at), byte(record, at + 4)
  if not length or length == 0 or at + 4 + length > #record then return nil end -- no session_id is empty
  return slot, at + 5, at + 4 + length
end

-- Sessions of a record, {step, session_id, step, session_id, ...}; nil when it is none. step_in: one of steps_of.
local function sessions_of(step_in, record)
  local found, at = {}, 1
  repeat
    local slot, first, last = session_at(record, at)
    local step = slot and step_in(slot)
    if not step then return nil end
    found[#found + 1] = step
    found[#found + 1] = sub(record, first, last)
    at = last + 1
  until at > #record
  return found
end

-- Of the sessions of a record: their newest step, how many are after step W, how many there are; nil when it is none.
local function counts_of(step_in, record, W)
  if not record then return nil end
  local newest, after, count, at = 0, 0, 0, 1
  repeat
    local slot, _, last = session_at(record, at)
    local step = slot and step_in(slot)
    if not step then return nil end
    if step > newest then newest = step end
    if step > W then after = after + 1 end
    count = count + 1
    at = last + 1
  until at > #record
  return newest, after, count
end

-- Up to `count` users after `last` ('' for the first) in the order of their bytes, and their records.
local function users_after(generation, last, count)
  local from = last == '' and '-' or '(' .. last
  local users = call('ZRANGEBYLEX', key(generation, 'users'), from, '+', 'LIMIT', 0, count)
  if #users == 0 then return users, {} end
  return users, call('HMGET', key(generation, 'seen'), unpack(users))
end

-- How many users have each step as their newest one, {step, users, step, users, ...}, and the sum of them;
-- nil when one of these is no number.
local function newest_of(generation)
  local found, sum = call('HGETALL', key(generation, 'newest')), 0
  for i = 1, #found do
    found[i] = tonumber(found[i])
    if not found[i] then return nil end
    if i % 2 == 0 then sum = sum + found[i] end
  end
  return found, sum
end

-- A function that adds a table, step -> users more or fewer, to `newest`; nil when that is not possible.
local function adds_to_newest(generation, changes)
  local newest_key = key(generation, 'newest')
  local set, gone = {}, {}
  for step, change in pairs(changes) do
    local name = string.format('%d', step)
    local users = tonumber(call('HGET', newest_key, name) or 0)
    if not users or users + change < 0 then return nil end
    if users + change == 0 then
      gone[#gone + 1] = name
    elseif change ~= 0 then
      set[#set + 1] = name
      set[#set + 1] = users + change
    end
  end
  return function()
    if #set > 0 then call('HSET', newest_key, unpack(set)) end
    if #gone > 0 then call('HDEL', newest_key, unpack(gone)) end
  end
end
