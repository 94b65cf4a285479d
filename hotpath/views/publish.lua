-- Raises complete_until_us and log_end; neither ever falls. ARGV: generation, payload.
-- payload: {applied, complete_until_us, log_end}: the claim of completeness holds for that `applied` alone.
local live = live_generation()
if live ~= ARGV[1] then return { 'MOVED', live } end
local state_key = key(live, 'state')
if not is_type(state_key, 'hash') then return { 'BROKEN', state_key } end
local state = redis.call('HMGET', state_key, 'applied', 'complete_until_us', 'log_end')
if not state[1] then return { 'EMPTY', '' } end
local applied, complete_until_us, log_end = unpack(cmsgpack.unpack(ARGV[2]))
if log_end > tonumber(state[3]) then
  redis.call('HSET', state_key, 'log_end', string.format('%.0f', log_end))
end
if state[1] ~= applied then return { 'OTHER', state[1] } end
if complete_until_us > tonumber(state[2]) then
  redis.call('HSET', state_key, 'complete_until_us', string.format('%.0f', complete_until_us))
end
return { 'OK', applied }
