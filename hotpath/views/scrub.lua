-- Looks at one bounded piece of the live generation for damage that no other script would come upon: keys of users
-- that nobody sees any more, hashes of steps that nothing is added to. ARGV: generation, payload.
-- payload: {cursor of users, cursor of steps, members a call}, cursors as of ZSCAN. Returns {'OK', cursor, cursor}.
-- Every other script leaves each of these true, trimming included, so what is found otherwise came from outside.
local live = live_generation()
if live ~= ARGV[1] then return { 'MOVED', live } end
local stored = {}
for _, name in ipairs({ 'users', 'ranked', 'fading', 'pages', 'steps' }) do
  local list_key = key(live, name)
  if not is_type(list_key, 'zset') then return { 'BROKEN', list_key } end
  stored[name] = redis.call('ZCARD', list_key)
end
if stored.ranked ~= stored.fading or stored.ranked > stored.users or (stored.pages == 0) ~= (stored.steps == 0) then
  return { 'BROKEN', 'lists' } -- a whole list is gone
end

local users_cursor, steps_cursor, members_max = unpack(cmsgpack.unpack(ARGV[2]))
local call = redis.call
-- The size that `command` tells is an error where a key is of another type, and 0 where it was lost.
local function look(list, cursor, part, command)
  local found = call('ZSCAN', key(live, list), cursor, 'COUNT', members_max)
  local members, prefix = found[2], key(live, part)
  for i = 1, #members, 2 do
    if call(command, prefix .. members[i]) == 0 then return nil, prefix .. members[i] end
  end
  return found[1]
end

local lost
users_cursor, lost = look('users', users_cursor, 'sessions:', 'ZCARD')
if lost then return { 'BROKEN', lost } end
steps_cursor, lost = look('steps', steps_cursor, 'pages:', 'HLEN')
if lost then return { 'BROKEN', lost } end
return { 'OK', users_cursor, steps_cursor }
