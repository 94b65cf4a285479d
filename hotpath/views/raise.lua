-- Raises last-seen steps of sessions whose slots the sender knows, and with them what `newest` counts.
-- ARGV: generation, payload {ticket before, ticket after, how many slots there are, {step, users more or fewer, ...},
-- {slot, bytes from there on, slot, bytes, ...}}. The ticket says that `slots` is what the sender believes it to be: bytes
-- may cover slots that do not change.
local live = live_generation()
if live ~= ARGV[1] then return { 'MOVED', live } end
local state_key = key(live, 'state')
if not is_type(state_key, 'hash') then return { 'BROKEN', state_key } end
local wrong = wrong_part(live, OF_USERS)
if wrong then return { 'BROKEN', wrong } end
local state = redis.call('HMGET', state_key, 'applied', 'touched')
if not state[1] then return { 'EMPTY', '' } end
local before, after, slots, newest, runs = unpack(cmsgpack.unpack(ARGV[2]))
if before ~= state[2] then return { 'TORN', '' } end
local slots_key = key(live, 'slots')
if redis.call('STRLEN', slots_key) ~= 4 * slots then return { 'BROKEN', slots_key } end
local changes = {}
for i = 1, #newest, 2 do changes[newest[i]] = newest[i + 1] end
local add_to_newest = adds_to_newest(live, changes)
if not add_to_newest then return { 'BROKEN', key(live, 'newest') } end

for i = 1, #runs, 2 do redis.call('SETRANGE', slots_key, 4 * runs[i], runs[i + 1]) end
add_to_newest()
redis.call('HSET', state_key, 'touched', after)
return { 'OK', '' }
