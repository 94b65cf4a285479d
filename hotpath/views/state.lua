-- Reads what is stored of a log: {generation, applied, base_step, seen_step, watermark_s, complete_until_us,
-- log_end}, or {} when it has no live generation.
local generation = live_generation()
local state_key = key(generation, 'state')
if generation == '' or redis.call('TYPE', state_key).ok ~= 'hash' then return {} end
local state = redis.call('HMGET', state_key, 'applied', 'base_step', 'seen_step', 'watermark_s',
  'complete_until_us', 'log_end')
for i = 1, 6 do
  if not state[i] or not tonumber(state[i]) then return {} end
end
table.insert(state, 1, generation)
return state
