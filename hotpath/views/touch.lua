-- Raises last-seen steps by name. Repeating it changes nothing. ARGV: generation, payload, 'building' or 'live'.
-- payload: {ticket before ('' for any), ticket after, {user, ...}, {session, ...}, {step, ...}}, three lists of one
-- length in any order, each session_id behind its length, as in records. Tickets chain what changes `slots`: a piece
-- whose predecessor was lost is refused. Scripts are not rolled back: everything is checked before the first write.
-- Returns, where it is live, what the sender may keep: {'OK', '', {slot, slot of the user's first session, newest step of
-- the user, ...}}, three numbers an entry in their order, -1 for what was left out.
local generation, live = ARGV[1], ARGV[3] == 'live'
if live then
  local live_now = live_generation()
  if live_now ~= generation then return { 'MOVED', live_now } end
end
local state_key = key(generation, 'state')
if not is_type(state_key, 'hash') then return { 'BROKEN', state_key } end
local wrong = wrong_of_users(generation)
if wrong then return { 'BROKEN', wrong } end
local state = redis.call('HMGET', state_key, 'applied', 'seen_step', 'touched')
if not state[1] then return { 'EMPTY', '' } end
local before, after, users, sessions, steps = unpack(cmsgpack.unpack(ARGV[2]))
if before ~= '' and before ~= state[3] then return { 'TORN', '' } end

local floor = tonumber(state[2])
local seen_key, slots_key, free_key = key(generation, 'seen'), key(generation, 'slots'), key(generation, 'free')
local stored = redis.call('HMGET', seen_key, unpack(users))
local slots_end = redis.call('STRLEN', slots_key) / 4
if slots_end % 1 ~= 0 then return { 'BROKEN', slots_key } end
local pack = struct.pack

local free, taken = nil, 0
local fresh = {} -- steps of the slots from slots_end on
local raised = {} -- slot -> step
-- A slot that no session has, for one last seen in `step`; nil when the list of those is none.
local function new_slot(step)
  if not free then free = redis.call('LRANGE', free_key, 0, #users - 1) end
  if not free[taken + 1] then
    fresh[#fresh + 1] = pack('<I4', step)
    raised[slots_end + #fresh - 1] = step
    return slots_end + #fresh - 1
  end
  taken = taken + 1
  local slot = tonumber(free[taken])
  if not slot or slot % 1 ~= 0 or slot < 0 or slot >= slots_end then return nil end
  raised[slot] = step
  return slot
end

local records, changed = {}, {} -- user -> record; the users of those that change
local last_seen = {} -- user -> newest step
local slots = {} -- of the entries
local added, ranked = {}, {}
local newest = {} -- step -> users more or fewer

local function move(user, to)
  local from = last_seen[user]
  if from then newest[from] = (newest[from] or 0) - 1 end
  newest[to] = (newest[to] or 0) + 1
  last_seen[user] = to
end

local function put(user, record)
  if not changed[user] then
    changed[user] = true
    changed[#changed + 1] = user
  end
  records[user] = record
end

-- Slot and step of a session in a record, both nil when it has none; then the record's newest step, and how many
-- sessions it has; no newest step when it is no record. No string is made of what is only looked at.
local function find_session(record, session)
  local found = string.find(record, session, 5, true)
  local newest_step, count, at = 0, 0, 1
  local slot_of, step_of
  repeat
    local slot, _, last = session_at(record, at)
    local step = slot and (raised[slot] or step_in(slots_key, slot))
    if not step then return nil end
    if found and found < at + 4 then found = string.find(record, session, at + 4, true) end -- that was within another
    if found == at + 4 then slot_of, step_of = slot, step end
    if step > newest_step then newest_step = step end
    count, at = count + 1, last + 1
  until at > #record
  return slot_of, step_of, newest_step, count
end

for i, user in ipairs(users) do
  local step, session = steps[i], sessions[i]
  if step > floor then
    local record = records[user] or stored[i]
    if not record then
      local slot = new_slot(step)
      if not slot then return { 'BROKEN', free_key } end
      added[#added + 1] = 0
      added[#added + 1] = user
      move(user, step)
      put(user, pack('<I4', slot) .. session)
      slots[i] = slot
    else
      local slot, known, newest_step, count = find_session(record, session)
      if not newest_step then return { 'BROKEN', seen_key } end
      records[user], last_seen[user] = record, newest_step
      if not slot then
        slot = new_slot(step)
        if not slot then return { 'BROKEN', free_key } end
        put(user, record .. pack('<I4', slot) .. session)
        ranked[user] = -(count + 1)
      elseif step > known then
        raised[slot] = step
      end
      if step > newest_step then move(user, step) end
      slots[i] = slot
    end
  end
end
local add_to_newest = adds_to_newest(generation, newest)
if not add_to_newest then return { 'BROKEN', key(generation, 'newest') } end

local fields, ranks = {}, {}
for i, user in ipairs(changed) do
  fields[2 * i - 1], fields[2 * i] = user, records[user]
end
for user, rank in pairs(ranked) do
  ranks[#ranks + 1] = rank
  ranks[#ranks + 1] = user
end
if #added > 0 then redis.call('ZADD', key(generation, 'users'), unpack(added)) end
if #fields > 0 then redis.call('HSET', seen_key, unpack(fields)) end
if #ranks > 0 then redis.call('ZADD', key(generation, 'ranked'), unpack(ranks)) end
if taken > 0 then redis.call('LTRIM', free_key, taken, -1) end
if #fresh > 0 then redis.call('SETRANGE', slots_key, 4 * slots_end, table.concat(fresh)) end
for slot, step in pairs(raised) do
  if slot < slots_end then redis.call('SETRANGE', slots_key, 4 * slot, pack('<I4', step)) end
end
add_to_newest()
redis.call('HSET', state_key, 'touched', after)
if not live then return { 'OK', '' } end
local places = {}
for i, user in ipairs(users) do
  local slot = slots[i]
  places[3 * i - 2] = slot or -1
  places[3 * i - 1] = slot and session_at(records[user], 1) or -1
  places[3 * i] = slot and last_seen[user] or -1
end
return { 'OK', '', places }
