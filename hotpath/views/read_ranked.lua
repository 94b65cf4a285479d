-- Users of this log that may be among its n with the most sessions after step W, with how many they have:
-- {'OK', user, sessions, user, sessions, ...}; {'BEHIND'} when trimming has left too much to look through.
-- ARGV: generation, payload {W, n}.
-- As in Fagin's threshold algorithm: `ranked` bounds from above what is yet unseen. The n are sure once so many of
-- the seen have more than the next one's bound, or as many as it and are before it by their bytes.
local W, n = unpack(cmsgpack.unpack(ARGV[2]))
local EXAMINED_MAX = 5000 -- 2 to 3 ms
if live_generation() ~= ARGV[1] then return { 'MOVED' } end
local seen_step = redis.call('HGET', key(ARGV[1], 'state'), 'seen_step')
if not seen_step or tonumber(seen_step) > W then return { 'MOVED' } end
local after = '(' .. string.format('%d', W)
local ranked_key, users_key = key(ARGV[1], 'ranked'), key(ARGV[1], 'users')

local answer = { 'OK' }
local users_with = {} -- sessions after W -> users seen
local function users_with_more(than)
  local count = 0
  for sessions, users in pairs(users_with) do
    if sessions > than then count = count + users end
  end
  return count
end

local examined, bound, sure = 0, math.huge, 0
repeat
  local found = redis.call('ZRANGE', ranked_key, examined, examined + n - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    local user, stored = found[i], -tonumber(found[i + 1])
    if stored < bound then
      bound, sure = stored, users_with_more(stored)
    end
    if sure >= n then return answer end
    local active = redis.call('ZCOUNT', key(ARGV[1], 'sessions:' .. user), after, '+inf')
    examined = examined + 1
    if active > 0 then
      answer[#answer + 1] = user
      answer[#answer + 1] = active
      users_with[active] = (users_with[active] or 0) + 1
      if active == bound then sure = sure + 1 end
    end
  end
  if examined > EXAMINED_MAX then return { 'BEHIND' } end
until #found == 0
if users_with_more(1) >= n then return answer end

-- Who is not ranked has one session. Of those last seen in one step only the n first by their bytes can be among
-- the n: all users of the step are active.
local newest = redis.call('ZREVRANGE', users_key, 0, 0, 'WITHSCORES')[2]
for step = W + 1, tonumber(newest or W) do
  for _, user in ipairs(redis.call('ZRANGEBYSCORE', users_key, step, step, 'LIMIT', 0, n)) do
    answer[#answer + 1] = user
    answer[#answer + 1] = 1 -- unless it stands in the answer already
  end
end
return answer
