-- Reads what is stored of a log: {generation, applied, base_step, seen_step, watermark_s, complete_until_us,
-- log_end}, or {} when it has no live generation.
local generation = live_generation()
local state_key = key(generation, 'state')
if generation == '' or redis.call('TYPE', state_key).ok ~= 'hash' then return {} end
local state = redis.call('HMGET', state_key, 'applied', 'base_step', 'seen_step', 'watermark_s',
  'complete_until_us', 'log_end', 'layout')
if state[7] ~= '4' then return {} end -- of another version of this program: see LAYOUT in store.py
for i = 1, 6 do
  if not state[i] or not tonumber(state[i]) then return {} end
end
return { generation, unpack(state, 1, 6) }
