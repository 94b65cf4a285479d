-- Raises last-seen steps. Repeating it changes nothing. ARGV: generation, payload, 'building' or 'live'.
-- payload: {ticket before, ticket after, {user, ...}, {session, ...}, {step, ...}}, three lists of one length in any
-- order, each session_id behind its length, as in records. Tickets chain the pieces of one batch: a piece whose
-- predecessor was lost is refused. Scripts are not rolled back: everything is checked before the first write.
local generation = ARGV[1]
if ARGV[3] == 'live' then
  local live = live_generation()
  if live ~= generation then return { 'MOVED', live } end
end
local state_key = key(generation, 'state')
if not is_type(state_key, 'hash') then return { 'BROKEN', state_key } end
local wrong = wrong_list(generation, { 'users', 'ranked', 'seen', 'newest' })
if wrong then return { 'BROKEN', wrong } end
local state = redis.call('HMGET', state_key, 'applied', 'seen_step', 'touched')
if not state[1] then return { 'EMPTY', '' } end
local before, after, users, sessions, steps = unpack(cmsgpack.unpack(ARGV[2]))
if before ~= '' and before ~= state[3] then return { 'TORN', '' } end

local floor = tonumber(state[2])
local seen_key = key(generation, 'seen')
local stored = redis.call('HMGET', seen_key, unpack(users))
local find, sub = string.find, string.sub
local packed = {} -- step -> its four bytes
for _, step in ipairs(steps) do
  if not packed[step] then packed[step] = struct.pack('>I4', step) end
end
local fields, place = {}, {} -- {user, record, ...} of those that change; user -> where the record is
local added, ranked = {}, {}
local newest = {} -- step -> users more or fewer

local function move(from, to)
  if from then newest[from] = (newest[from] or 0) - 1 end
  newest[to] = (newest[to] or 0) + 1
end

local function put(user, record)
  local at = place[user]
  if not at then
    at = #fields + 2
    place[user], fields[at - 1] = at, user
  end
  fields[at] = record
end

-- A record of several sessions, or of another one: with the step of `session` raised, or with it added; nil when it is
-- no record. No string is made of what is only looked at.
local function raised(user, record, session, step)
  local found = find(record, session, 5, true)
  local last_seen, count, at = 0, 0, 1
  local known, place -- the step of `session`, and where it stands
  repeat
    local of, _, last = session_at(record, at)
    if not of then return nil end
    if found and found < at + 4 then found = find(record, session, at + 4, true) end -- that was within another one
    if found == at + 4 then known, place = of, at end
    if of > last_seen then last_seen = of end
    count, at = count + 1, last + 1
  until at > #record
  if known and known >= step then return record end
  if step > last_seen then move(last_seen, step) end
  if known then return sub(record, 1, place - 1) .. packed[step] .. sub(record, place + 4) end
  ranked[user] = -(count + 1)
  return record .. packed[step] .. session
end

for i, user in ipairs(users) do
  local step, session = steps[i], sessions[i]
  if step > floor then
    local record = place[user] and fields[place[user]] or stored[i]
    if not record then
      added[#added + 1] = 0
      added[#added + 1] = user
      move(nil, step)
      put(user, packed[step] .. session)
    elseif #record == #session + 4 and sub(record, 5) == session then
      -- Nearly all: a user with one session, this one.
      local known = session_at(record, 1)
      if step > known then
        move(known, step)
        put(user, packed[step] .. session)
      end
    else
      local other = raised(user, record, session, step)
      if not other then return { 'BROKEN', seen_key } end
      if other ~= record then put(user, other) end
    end
  end
end
local add_to_newest = adds_to_newest(generation, newest)
if not add_to_newest then return { 'BROKEN', key(generation, 'newest') } end

local ranks = {}
for user, rank in pairs(ranked) do
  ranks[#ranks + 1] = rank
  ranks[#ranks + 1] = user
end
if #added > 0 then redis.call('ZADD', key(generation, 'users'), unpack(added)) end
if #fields > 0 then redis.call('HSET', seen_key, unpack(fields)) end
if #ranks > 0 then redis.call('ZADD', key(generation, 'ranked'), unpack(ranks)) end
add_to_newest()
redis.call('HSET', state_key, 'touched', after)
return { 'OK', '' }
