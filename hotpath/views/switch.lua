-- Makes a finished generation the live one if the live one is still what the builder saw ('' for none).
-- ARGV: the new generation, payload {the old one, force}. What was published of the old one holds for all that
-- reaches as far, so it goes along; a generation that does not reach as far is refused unless forced.
local live = live_generation()
if live == ARGV[1] then return { 'ALREADY', live } end
local old, force = unpack(cmsgpack.unpack(ARGV[2]))
if live ~= old then return { 'MOVED', live } end
local state_key, old_key = key(ARGV[1], 'state'), key(old, 'state')
local applied = redis.call('HGET', state_key, 'applied')
if not applied or not string.match(applied, '^%d+$') then return { 'EMPTY', '' } end -- still being built
if old ~= '' and redis.call('TYPE', old_key).ok == 'hash' then
  local before = redis.call('HMGET', old_key, 'applied', 'complete_until_us', 'log_end')
  local reached = tonumber(before[1] or nil)
  if reached and reached > tonumber(applied) then
    if not force then return { 'BEHIND', before[1] } end
  elseif reached then
    for i, name in ipairs({ 'complete_until_us', 'log_end' }) do
      local published = tonumber(before[i + 1] or nil)
      if published and published > tonumber(redis.call('HGET', state_key, name)) then
        redis.call('HSET', state_key, name, before[i + 1])
      end
    end
  end
end
redis.call('SET', KEYS[1], ARGV[1])
return { 'OK', '' }
