-- The steps of the first slots, for a sender of `raise.lua`: {'OK', ticket, how many slots there are, bytes}.
-- ARGV: generation, payload {slots at most}.
local live = live_generation()
if live ~= ARGV[1] then return { 'MOVED', live } end
local state_key, slots_key = key(live, 'state'), key(live, 'slots')
if not is_type(state_key, 'hash') then return { 'BROKEN', state_key } end
if not is_type(slots_key, 'string') then return { 'BROKEN', slots_key } end
local ticket = redis.call('HGET', state_key, 'touched')
if not ticket then return { 'EMPTY', '' } end
local length = redis.call('STRLEN', slots_key)
if length % 4 ~= 0 then return { 'BROKEN', slots_key } end
local slots_max = cmsgpack.unpack(ARGV[2])[1]
return { 'OK', ticket, length / 4, redis.call('GETRANGE', slots_key, 0, 4 * slots_max - 1) }
