-- Raises last-seen steps. Repeating it changes nothing. ARGV: generation, payload, 'building' or 'live'.
-- payload: {ticket before, ticket after, {user, session, step, user, session, step, ...}}; the entries of one
-- user stand together. Tickets chain the pieces of one batch: a piece whose predecessor was lost is refused.
local generation = ARGV[1]
if ARGV[3] == 'live' then
  local live = live_generation()
  if live ~= generation then return { 'MOVED', live } end
end
local state_key, users_key = key(generation, 'state'), key(generation, 'users')
local ranked_key, fading_key = key(generation, 'ranked'), key(generation, 'fading')
if not is_type(state_key, 'hash') then return { 'BROKEN', state_key } end
for _, name in ipairs({ users_key, ranked_key, fading_key }) do
  if not is_type(name, 'zset') then return { 'BROKEN', name } end
end
local state = redis.call('HMGET', state_key, 'applied', 'seen_step', 'touched')
if not state[1] then return { 'EMPTY', '' } end
local before, after, entries = unpack(cmsgpack.unpack(ARGV[2]))
if before ~= '' and before ~= state[3] then return { 'TORN', '' } end

local floor = tonumber(state[2])
local users, sessions = {}, {}
local at = 1
while at <= #entries do
  local user, newest, members = entries[at], -1, {}
  repeat
    local step = entries[at + 2]
    if step > floor then
      members[#members + 1] = step
      members[#members + 1] = entries[at + 1]
      newest = math.max(newest, step)
    end
    at = at + 3
  until at > #entries or entries[at] ~= user
  if newest >= 0 then
    users[#users + 1] = newest
    users[#users + 1] = user
    sessions[#sessions + 1] = members
  end
end
-- Users first: were a session's key of a wrong type, trimming would still find those already written.
if #users > 0 then redis.call('ZADD', users_key, 'GT', unpack(users)) end
for i, members in ipairs(sessions) do
  local user = users[2 * i]
  local sessions_key = key(generation, 'sessions:' .. user)
  local added = redis.call('ZADD', sessions_key, 'GT', unpack(members))
  if added > 0 then
    local stored = redis.call('ZCARD', sessions_key)
    -- Most users have one session and are not ranked: what is only there to be ranked costs them nothing.
    if stored > 1 then
      redis.call('ZADD', ranked_key, -stored, user)
      -- A new session moves the least last-seen step down at most; what stands there already may stay.
      local least = redis.call('ZRANGE', sessions_key, 0, 0, 'WITHSCORES')[2]
      redis.call('ZADD', fading_key, 'LT', least, user)
    end
  end
end
redis.call('HSET', state_key, 'touched', after)
return { 'OK', '' }
