-- Raises last-seen steps by name. Repeating it changes nothing. ARGV: generation, payload, 'building' or 'live'.
-- payload: {ticket before ('' for any), ticket after, {user, ...}, {session, ...}, {step, ...}}, three lists of one
-- length in any order, no user twice, each session_id behind its length, as in records. Tickets chain what changes
-- `slots`: a piece whose predecessor was lost is refused. Scripts are not rolled back: everything is checked before the
-- first write.
-- Returns, where it is live, what the sender may keep: {'OK', '', packed {{slot, ...}, {entry, slot of the user's first
-- session, newest step of the user, ...}}}: of each entry in their order its slot, -1 for what was left out; and of the
-- entries (numbered from 1) whose user had a record, what stands in it now. All others are their user's first.
local generation, live = ARGV[1], ARGV[3] == 'live'
if live then
  local live_now = live_generation()
  if live_now ~= generation then return { 'MOVED', live_now } end
end
local state_key = key(generation, 'state')
if not is_type(state_key, 'hash') then return { 'BROKEN', state_key } end
local wrong = wrong_part(generation, OF_USERS)
if wrong then return { 'BROKEN', wrong } end
local state = call('HMGET', state_key, 'applied', 'seen_step', 'touched')
if not state[1] then return { 'EMPTY', '' } end
local before, after, users, sessions, steps = unpack(cmsgpack.unpack(ARGV[2]))
if before ~= '' and before ~= state[3] then return { 'TORN', '' } end

local floor = tonumber(state[2])
local seen_key, slots_key, free_key = key(generation, 'seen'), key(generation, 'slots'), key(generation, 'free')
local count = #users
local stored = call('HMGET', seen_key, unpack(users))
local slots_end = call('STRLEN', slots_key) / 4
if slots_end % 1 ~= 0 then return { 'BROKEN', slots_key } end
local free = call('LRANGE', free_key, 0, count - 1)
for i, slot in ipairs(free) do
  slot = tonumber(slot)
  if not slot or slot % 1 ~= 0 or slot < 0 or slot >= slots_end then return { 'BROKEN', free_key } end
  free[i] = slot
end
local pack, find = struct.pack, string.find
local known = 0
for i = 1, count do
  if stored[i] then known = known + 1 end
end
local stored_step = known > 0 and steps_of(slots_key, known)

local packed = {} -- step -> its four bytes
for _, step in ipairs(steps) do
  if not packed[step] then packed[step] = pack('<I4', step) end
end
local free_count, taken = #free, 0
local fresh, fresh_count = {}, 0 -- steps of the slots from slots_end on, packed
local raised, raised_steps, raised_count = {}, {}, 0 -- slots before those, and their steps, packed

-- A slot that no session has, for one last seen in `step`.
local function new_slot(step)
  if taken == free_count then
    fresh_count = fresh_count + 1
    fresh[fresh_count] = packed[step]
    return slots_end + fresh_count - 1
  end
  taken, raised_count = taken + 1, raised_count + 1
  raised[raised_count], raised_steps[raised_count] = free[taken], packed[step]
  return free[taken]
end

-- Slot and step of a session in a record, both nil when it has none; then the record's newest step, and how many
-- sessions it has; no newest step when it is no record. No string is made of what is only looked at.
local function find_session(record, session)
  local found = find(record, session, 5, true)
  local newest_step, sessions_count, at = 0, 0, 1
  local slot_of, step_of
  repeat
    local slot, _, last = session_at(record, at)
    local step = slot and stored_step(slot)
    if not step then return nil end
    if found and found < at + 4 then found = find(record, session, at + 4, true) end -- that was within another one
    if found == at + 4 then slot_of, step_of = slot, step end
    if step > newest_step then newest_step = step end
    sessions_count, at = sessions_count + 1, last + 1
  until at > #record
  return slot_of, step_of, newest_step, sessions_count
end

local slots = {} -- of each entry
local had, had_count = {}, 0 -- what is told of entries whose user had a record
local newest = {} -- step -> users more or fewer
local added, fields, ranks = {}, {}, {}
local added_count, field_count, rank_count = 0, 0, 0
for i = 1, count do
  local user, session, step, record = users[i], sessions[i], steps[i], stored[i]
  if step <= floor then
    slots[i] = -1
  elseif not record then
    local slot = new_slot(step)
    slots[i] = slot
    added[added_count + 1], added[added_count + 2] = '0', user
    added_count = added_count + 2
    fields[field_count + 1], fields[field_count + 2] = user, pack('<I4', slot) .. session
    field_count = field_count + 2
    newest[step] = (newest[step] or 0) + 1
  else
    local slot, slot_step, newest_step, sessions_count = find_session(record, session)
    if not newest_step then return { 'BROKEN', seen_key } end
    if not slot then
      slot = new_slot(step)
      fields[field_count + 1], fields[field_count + 2] = user, record .. pack('<I4', slot) .. session
      field_count = field_count + 2
      ranks[rank_count + 1], ranks[rank_count + 2] = -(sessions_count + 1), user
      rank_count = rank_count + 2
    elseif step > slot_step then
      raised_count = raised_count + 1
      raised[raised_count], raised_steps[raised_count] = slot, packed[step]
    end
    if step > newest_step then
      newest[newest_step] = (newest[newest_step] or 0) - 1
      newest[step] = (newest[step] or 0) + 1
      newest_step = step
    end
    slots[i] = slot
    had[had_count + 1], had[had_count + 2], had[had_count + 3] = i, number_in(record, 1), newest_step
    had_count = had_count + 3
  end
end
local add_to_newest = adds_to_newest(generation, newest)
if not add_to_newest then return { 'BROKEN', key(generation, 'newest') } end

if added_count > 0 then call('ZADD', key(generation, 'users'), unpack(added)) end
if field_count > 0 then call('HSET', seen_key, unpack(fields)) end
if rank_count > 0 then call('ZADD', key(generation, 'ranked'), unpack(ranks)) end
if taken > 0 then call('LTRIM', free_key, taken, -1) end
if fresh_count > 0 then call('SETRANGE', slots_key, 4 * slots_end, table.concat(fresh)) end
for i = 1, raised_count do call('SETRANGE', slots_key, 4 * raised[i], raised_steps[i]) end
add_to_newest()
call('HSET', state_key, 'touched', after)
return { 'OK', '', live and cmsgpack.pack({ slots, had }) or nil }
