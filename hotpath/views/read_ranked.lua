-- Users of this log that may be among its n with the most sessions after step W, with how many they have:
-- {'OK', user, sessions, user, sessions, ...}; {'BEHIND'} when trimming has left too much to look through.
-- ARGV: generation, payload {W, n}.
-- As in Fagin's threshold algorithm: `ranked` bounds from above what is yet unseen. The n are sure once so many of
-- the seen have more than the next one's bound, or as many as it and are before it by their bytes.
local W, n = unpack(cmsgpack.unpack(ARGV[2]))
local EXAMINED_MAX = 4000 -- 4 ms, when each has two sessions
local PIECE_MIN = 50
if live_generation() ~= ARGV[1] then return { 'MOVED' } end
local seen_step = redis.call('HGET', key(ARGV[1], 'state'), 'seen_step')
if not seen_step or tonumber(seen_step) > W then return { 'MOVED' } end
local ranked_key, seen_key = key(ARGV[1], 'ranked'), key(ARGV[1], 'seen')
local newest = newest_of(ARGV[1])
if not newest then return { 'BROKEN', 'newest' } end
local unseen = 0 -- active users that were not looked at yet
for i = 1, #newest, 2 do
  if newest[i] > W then unseen = unseen + newest[i + 1] end
end

local answer = { 'OK' }
local users_with = {} -- sessions after W -> users seen
local function users_with_more(than)
  local count = 0
  for sessions, users in pairs(users_with) do
    if sessions > than then count = count + users end
  end
  return count
end

local piece = math.max(n, PIECE_MIN)
local step_in = steps_of(key(ARGV[1], 'slots'), piece)
local examined, bound, sure = 0, math.huge, 0
while unseen > 0 do
  local found = redis.call('ZRANGE', ranked_key, examined, examined + piece - 1, 'WITHSCORES')
  if #found == 0 then break end
  local users = {}
  for i = 1, #found, 2 do users[#users + 1] = found[i] end
  local records = redis.call('HMGET', seen_key, unpack(users))
  for i, user in ipairs(users) do
    local stored = -tonumber(found[2 * i])
    if stored < bound then
      bound, sure = stored, users_with_more(stored)
    end
    if sure >= n then return answer end
    local last_seen, active = counts_of(step_in, records[i], W)
    if not last_seen then return { 'BROKEN', 'seen' } end
    if active > 0 then
      unseen = unseen - 1
      answer[#answer + 1] = user
      answer[#answer + 1] = active
      users_with[active] = (users_with[active] or 0) + 1
      if active == bound then sure = sure + 1 end
    end
  end
  examined = examined + #users
  if examined > EXAMINED_MAX then return { 'BEHIND' } end
end
if users_with_more(1) >= n then return answer end

-- Who is not ranked has one session: of these only the n first by their bytes can be among the n. Ranked ones that come
-- by again stand in the answer already, and before all who are not.
local last, active = '', 0
while unseen > 0 and active < n do
  local users, records = users_after(ARGV[1], last, piece)
  if #users == 0 then break end
  for i, user in ipairs(users) do
    local last_seen, after, stored = counts_of(step_in, records[i], W)
    if not last_seen then return { 'BROKEN', 'seen' } end
    if after > 0 then active = active + 1 end
    if after > 0 and stored == 1 then
      unseen = unseen - 1
      answer[#answer + 1] = user
      answer[#answer + 1] = 1
    end
    if active >= n then break end
  end
  last = users[#users]
  examined = examined + #users
  if active < n and examined > EXAMINED_MAX then return { 'BEHIND' } end
end
return answer
