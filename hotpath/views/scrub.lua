-- Looks at one bounded piece of the live generation for damage that no other script would come upon: under users
-- that nobody sees any more, hashes of steps that nothing is added to. ARGV: generation, payload.
-- payload: {user to go on after ('' for the first), cursor of steps as of ZSCAN, members a call}.
-- Returns {'OK', user, cursor}.
-- Every other script leaves each of these true, trimming included, so what is found otherwise came from outside.
local live = live_generation()
if live ~= ARGV[1] then return { 'MOVED', live } end
local wrong = wrong_part(live, OF_USERS) or wrong_part(live, OF_PAGES)
if wrong then return { 'BROKEN', wrong } end
local stored = call('HLEN', key(live, 'seen'))
local newest, newest_sum = newest_of(live)
if not newest or newest_sum ~= stored then return { 'BROKEN', key(live, 'newest') } end
-- All are of one score: only then are they in the order of their bytes.
if call('ZCARD', key(live, 'users')) ~= stored or call('ZCOUNT', key(live, 'users'), 0, 0) ~= stored then
  return { 'BROKEN', key(live, 'users') }
end
if call('STRLEN', key(live, 'slots')) % 4 ~= 0 then return { 'BROKEN', key(live, 'slots') } end
if call('ZCARD', key(live, 'ranked')) > stored then return { 'BROKEN', key(live, 'ranked') } end
if call('EXISTS', key(live, 'pages')) ~= call('EXISTS', key(live, 'steps')) then
  return { 'BROKEN', key(live, 'pages') } -- a whole list is gone
end

local last, steps_cursor, members_max = unpack(cmsgpack.unpack(ARGV[2]))
local users, records = users_after(live, last, members_max)
if #users > 0 then
  local step_in = steps_of(key(live, 'slots'), #users)
  local ranks = call('ZMSCORE', key(live, 'ranked'), unpack(users))
  for i = 1, #users do
    local last_seen, _, sessions = counts_of(step_in, records[i], 0)
    if not last_seen then return { 'BROKEN', key(live, 'seen') } end
    if tonumber(ranks[i] or 0) ~= (sessions > 1 and -sessions or 0) then
      return { 'BROKEN', key(live, 'ranked') }
    end
  end
end
last = #users == members_max and users[#users] or ''

-- The length is an error where a key is of another type, and 0 where it was lost.
local steps = call('ZSCAN', key(live, 'steps'), steps_cursor, 'COUNT', members_max)
for i = 1, #steps[2], 2 do
  local step_key = key(live, 'pages:' .. steps[2][i])
  if call('HLEN', step_key) == 0 then return { 'BROKEN', step_key } end
end
return { 'OK', last, steps[1] }
