-- Takes what has left the windows out of the views, one bounded piece a call. ARGV: generation, payload.
-- payload: {base_step, seen_step, pages a call, users a call, steps a sweep, ticket after}. Returns {'OK', '0'} when
-- all is done, {'OK', '1'} while pages are to be taken away, {'OK', 'SWEEP', users} while so many are swept. A sweep's
-- answers, {'OK', '0', users} for the last, go on with the slots that no session has any more, {slot, ...}, and the ticket
-- of the `slots` that they were taken from; where there are any, those have the ticket after now. The borders move first,
-- so that a reader whose window begins before them knows to look again; the hash of a step empties together with
-- `pages`, so that their sums agree after each call.
-- Users are swept, all of them in the order of their bytes, once seen_step has come so many steps on since the last
-- sweep began (`swept`); `cursor` is how far a sweep has come, and there while one is under way.
local FREED_AT_ONCE = 5000 -- arguments of one command
local live = live_generation()
if live ~= ARGV[1] then return { 'MOVED', live } end
local state_key = key(live, 'state')
local pages_key, steps_key = key(live, 'pages'), key(live, 'steps')
local users_key, ranked_key = key(live, 'users'), key(live, 'ranked')
local seen_key, slots_key = key(live, 'seen'), key(live, 'slots')
if not is_type(state_key, 'hash') then return { 'BROKEN', state_key } end
local wrong = wrong_part(live, OF_USERS) or wrong_part(live, OF_PAGES)
if wrong then return { 'BROKEN', wrong } end
local state = redis.call('HMGET', state_key, 'base_step', 'seen_step', 'swept', 'cursor', 'touched')
if not state[1] then return { 'EMPTY', '' } end
local base_target, seen_target, pages_max, users_max, sweep_steps, ticket = unpack(cmsgpack.unpack(ARGV[2]))
local base_step = math.max(base_target, tonumber(state[1]))
local seen_step = math.max(seen_target, tonumber(state[2]))
local steps = redis.call('ZRANGEBYSCORE', steps_key, '-inf', base_step, 'LIMIT', 0, 1)
local step_key = steps[1] and key(live, 'pages:' .. steps[1])
if step_key and not is_type(step_key, 'hash') then return { 'BROKEN', step_key } end

redis.call('HSET', state_key, 'base_step', string.format('%d', base_step),
  'seen_step', string.format('%d', seen_step))
if step_key then
  local whole = redis.call('HLEN', step_key) <= pages_max
  local found = whole and redis.call('HGETALL', step_key) or redis.call('HSCAN', step_key, 0, 'COUNT', pages_max)[2]
  for i = 1, #found, 2 do
    -- What HSCAN tells may be told twice.
    if whole or redis.call('HDEL', step_key, found[i]) == 1 then
      if tonumber(redis.call('ZINCRBY', pages_key, '-' .. found[i + 1], found[i])) <= 0 then
        redis.call('ZREM', pages_key, found[i])
      end
    end
  end
  if whole then redis.call('DEL', step_key) end
  if whole or redis.call('EXISTS', step_key) == 0 then redis.call('ZREM', steps_key, steps[1]) end
  return { 'OK', '1' }
end

local swept, cursor = tonumber(state[3] or 0), state[4]
if not cursor then
  if seen_step < swept + sweep_steps then return { 'OK', '0' } end
  swept, cursor = seen_step, ''
end
local users, records = users_after(live, cursor, users_max)
local step_in, freed = steps_of(slots_key, #users), {}
-- A record less its sessions up to step W, whose slots are freed.
local function cut(record, W)
  local kept, at = '', 1
  repeat
    local slot, _, last = session_at(record, at)
    if step_in(slot) > W then
      kept = kept .. string.sub(record, at, last)
    else
      freed[#freed + 1] = slot
    end
    at = last + 1
  until at > #record
  return kept
end

local gone, unranked, kept, ranks = {}, {}, {}, {}
local newest = {} -- step -> users fewer
for i, user in ipairs(users) do
  local last_seen, after, stored = counts_of(step_in, records[i], seen_step)
  if not last_seen then return { 'BROKEN', seen_key } end
  if after == 0 then
    gone[#gone + 1] = user
    cut(records[i], seen_step)
    newest[last_seen] = (newest[last_seen] or 0) - 1
  elseif after < stored then
    kept[#kept + 1] = user
    kept[#kept + 1] = cut(records[i], seen_step)
    if after > 1 then
      ranks[#ranks + 1] = -after
      ranks[#ranks + 1] = user
    end
  end
  if stored > 1 and after < 2 then unranked[#unranked + 1] = user end
end
local add_to_newest = adds_to_newest(live, newest)
if not add_to_newest then return { 'BROKEN', key(live, 'newest') } end

if #gone > 0 then
  redis.call('ZREM', users_key, unpack(gone))
  redis.call('HDEL', seen_key, unpack(gone))
end
if #kept > 0 then redis.call('HSET', seen_key, unpack(kept)) end
if #ranks > 0 then redis.call('ZADD', ranked_key, unpack(ranks)) end
if #unranked > 0 then redis.call('ZREM', ranked_key, unpack(unranked)) end
add_to_newest()
for i = 1, #freed, FREED_AT_ONCE do
  redis.call('RPUSH', key(live, 'free'), unpack(freed, i, math.min(#freed, i + FREED_AT_ONCE - 1)))
end
local left, taken_from = redis.call('HLEN', seen_key), state[5] or ''
if #freed > 0 then
  redis.call('HSET', state_key, 'touched', ticket)
  if left == 0 then
    redis.call('DEL', slots_key, key(live, 'free'))
    taken_from = '' -- so that nobody takes slots for there
  end
end
redis.call('HSET', state_key, 'swept', string.format('%d', swept))
if #users < users_max then
  redis.call('HDEL', state_key, 'cursor')
  return { 'OK', '0', left, freed, taken_from }
end
redis.call('HSET', state_key, 'cursor', users[#users])
return { 'OK', 'SWEEP', left, freed, taken_from }
