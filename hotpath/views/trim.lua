-- Takes what has left the windows out of the views, one bounded piece a call. ARGV: generation, payload.
-- payload: {base_step, seen_step, pages a call, users a call}. Returns {'OK', '1'} while more is to be done.
-- The borders move first, so that a reader whose window begins before them knows to look again; the hash of a
-- step empties together with `pages`, so that their sums agree after each call.
local live = live_generation()
if live ~= ARGV[1] then return { 'MOVED', live } end
local state_key, users_key = key(live, 'state'), key(live, 'users')
local ranked_key, fading_key = key(live, 'ranked'), key(live, 'fading')
local pages_key, steps_key = key(live, 'pages'), key(live, 'steps')
if not is_type(state_key, 'hash') then return { 'BROKEN', state_key } end
for _, name in ipairs({ users_key, ranked_key, fading_key, pages_key, steps_key }) do
  if not is_type(name, 'zset') then return { 'BROKEN', name } end
end
local state = redis.call('HMGET', state_key, 'base_step', 'seen_step')
if not state[1] then return { 'EMPTY', '' } end
local base_target, seen_target, pages_max, users_max = unpack(cmsgpack.unpack(ARGV[2]))
local base_step = math.max(base_target, tonumber(state[1]))
local seen_step = math.max(seen_target, tonumber(state[2]))
local steps = redis.call('ZRANGEBYSCORE', steps_key, '-inf', base_step, 'LIMIT', 0, 1)
local step_key = steps[1] and key(live, 'pages:' .. steps[1])
if step_key and not is_type(step_key, 'hash') then return { 'BROKEN', step_key } end

local more = '0'
redis.call('HSET', state_key, 'base_step', string.format('%d', base_step),
  'seen_step', string.format('%d', seen_step))
if step_key then
  more = '1'
  local found = redis.call('HSCAN', step_key, 0, 'COUNT', pages_max)[2]
  for i = 1, #found, 2 do
    if redis.call('HDEL', step_key, found[i]) == 1 then
      if tonumber(redis.call('ZINCRBY', pages_key, '-' .. found[i + 1], found[i])) <= 0 then
        redis.call('ZREM', pages_key, found[i])
      end
    end
  end
  if redis.call('EXISTS', step_key) == 0 then redis.call('ZREM', steps_key, steps[1]) end
end
local gone = redis.call('ZRANGEBYSCORE', users_key, '-inf', seen_step, 'LIMIT', 0, users_max)
for _, user in ipairs(gone) do
  redis.call('UNLINK', key(live, 'sessions:' .. user)) -- no session is younger than its user
end
if #gone > 0 then
  for _, name in ipairs({ ranked_key, fading_key, users_key }) do redis.call('ZREM', name, unpack(gone)) end
end
-- A user who never leaves must not keep every session there ever was, nor the rank that they gave. Only once who
-- left is gone: of them there is nothing to be kept.
local fading = {}
if #gone < users_max then
  fading = redis.call('ZRANGEBYSCORE', fading_key, '-inf', seen_step, 'LIMIT', 0, users_max)
end
for _, user in ipairs(fading) do
  local sessions_key = key(live, 'sessions:' .. user)
  redis.call('ZREMRANGEBYSCORE', sessions_key, '-inf', seen_step)
  local stored = redis.call('ZCARD', sessions_key)
  if stored > 1 then
    redis.call('ZADD', ranked_key, -stored, user)
    redis.call('ZADD', fading_key, redis.call('ZRANGE', sessions_key, 0, 0, 'WITHSCORES')[2], user)
  else
    redis.call('ZREM', ranked_key, user)
    redis.call('ZREM', fading_key, user)
  end
end
if #fading == users_max or #gone == users_max then more = '1' end
return { 'OK', more }
