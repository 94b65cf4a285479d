-- Raises last-seen steps by name. Repeating it changes nothing. ARGV: generation, payload, 'building' or 'live'.
-- payload: {ticket before ('' for any), ticket after, {user, ...}, {session, ...}, {step, ...}}, three lists of one
-- length in any order, each session_id behind its length, as in records. Tickets chain what changes `slots`: a piece
-- whose predecessor was lost is refused. Scripts are not rolled back: everything is checked before the first write.
-- Returns, where it is live, what the sender may keep: {'OK', '', {slot, ...}, {slot of the user's first session, ...},
-- {newest step of the user, ...}}, of each entry in their order, -1 for what was left out.
local generation, live = ARGV[1], ARGV[3] == 'live'
if live then
  local live_now = live_generation()
  if live_now ~= generation then return { 'MOVED', live_now } end
end
local state_key = key(generation, 'state')
if not is_type(state_key, 'hash') then return { 'BROKEN', state_key } end
local wrong = wrong_part(generation, OF_USERS)
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
local pack, find = struct.pack, string.find
local known = 0
for i = 1, #users do
  if stored[i] then known = known + 1 end
end
local stored_step = steps_of(slots_key, known)

local packed = {} -- step -> its four bytes
for _, step in ipairs(steps) do
  if not packed[step] then packed[step] = pack('<I4', step) end
end
local free, taken = nil, 0
local fresh = {} -- steps of the slots from slots_end on, packed
local raised = {} -- slot -> step
-- A slot that no session has, for one last seen in `step`; nil when the list of those is none.
local function new_slot(step)
  if not free then free = redis.call('LRANGE', free_key, 0, #users - 1) end
  if not free[taken + 1] then
    local slot = slots_end + #fresh
    fresh[#fresh + 1] = packed[step]
    raised[slot] = step
    return slot
  end
  taken = taken + 1
  local slot = tonumber(free[taken])
  if not slot or slot % 1 ~= 0 or slot < 0 or slot >= slots_end then return nil end
  raised[slot] = step
  return slot
end

local first = {} -- user -> which entry is their first; what follows is by that
local records, last_seen = {}, {}
local changed, ranked = {}, {}
local slots = {} -- of each entry
local newest = {} -- step -> users more or fewer
local added, fields = {}, {}

-- Slot and step of a session in a record, both nil when it has none; then the record's newest step, and how many
-- sessions it has; no newest step when it is no record. No string is made of what is only looked at.
local function find_session(record, session)
  local found = find(record, session, 5, true)
  local newest_step, count, at = 0, 0, 1
  local slot_of, step_of
  repeat
    local slot, _, last = session_at(record, at)
    local step = slot and (raised[slot] or stored_step(slot))
    if not step then return nil end
    if found and found < at + 4 then found = find(record, session, at + 4, true) end -- that was within another one
    if found == at + 4 then slot_of, step_of = slot, step end
    if step > newest_step then newest_step = step end
    count, at = count + 1, last + 1
  until at > #record
  return slot_of, step_of, newest_step, count
end

for i, user in ipairs(users) do
  local step, session = steps[i], sessions[i]
  if step > floor then
    local at = first[user] or i
    local record = records[at] or stored[i]
    first[user] = at
    if not record then
      local slot = new_slot(step)
      if not slot then return { 'BROKEN', free_key } end
      slots[i], records[i], last_seen[i], changed[i] = slot, pack('<I4', slot) .. session, step, true
      newest[step] = (newest[step] or 0) + 1
      added[#added + 1] = '0'
      added[#added + 1] = user
    else
      local slot, slot_step, newest_step, count = find_session(record, session)
      if not newest_step then return { 'BROKEN', seen_key } end
      records[at] = record
      if not slot then
        slot = new_slot(step)
        if not slot then return { 'BROKEN', free_key } end
        records[at], changed[at], ranked[at] = record .. pack('<I4', slot) .. session, true, -(count + 1)
      elseif step > slot_step then
        raised[slot] = step
      end
      if step > newest_step then
        newest[newest_step] = (newest[newest_step] or 0) - 1
        newest[step] = (newest[step] or 0) + 1
        newest_step = step
      end
      slots[i], last_seen[at] = slot, newest_step
    end
  else
    slots[i] = -1
  end
end
local add_to_newest = adds_to_newest(generation, newest)
if not add_to_newest then return { 'BROKEN', key(generation, 'newest') } end

local ranks = {}
for i, user in ipairs(users) do
  if changed[i] then
    fields[#fields + 1] = user
    fields[#fields + 1] = records[i]
  end
  if ranked[i] then
    ranks[#ranks + 1] = ranked[i]
    ranks[#ranks + 1] = user
  end
end
if #added > 0 then redis.call('ZADD', key(generation, 'users'), unpack(added)) end
if #fields > 0 then redis.call('HSET', seen_key, unpack(fields)) end
if #ranks > 0 then redis.call('ZADD', key(generation, 'ranked'), unpack(ranks)) end
if taken > 0 then redis.call('LTRIM', free_key, taken, -1) end
if #fresh > 0 then redis.call('SETRANGE', slots_key, 4 * slots_end, table.concat(fresh)) end
for slot, step in pairs(raised) do
  if slot < slots_end then redis.call('SETRANGE', slots_key, 4 * slot, packed[step]) end
end
add_to_newest()
redis.call('HSET', state_key, 'touched', after)
if not live then return { 'OK', '' } end
local owners, newest_steps = {}, {}
for i, user in ipairs(users) do
  local at = slots[i] >= 0 and first[user]
  owners[i] = at and session_at(records[at], 1) or -1
  newest_steps[i] = at and last_seen[at] or -1
end
return { 'OK', '', slots, owners, newest_steps }
