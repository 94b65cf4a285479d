-- Makes a finished generation the live one if the live one is still what the builder saw ('' for none).
-- ARGV: the new generation, payload {the old one}.
local live = live_generation()
if live == ARGV[1] then return { 'ALREADY', live } end
if live ~= cmsgpack.unpack(ARGV[2])[1] then return { 'MOVED', live } end
local applied = redis.call('HGET', key(ARGV[1], 'state'), 'applied')
if not applied or not string.match(applied, '^%d+$') then return { 'EMPTY', '' } end -- still being built
redis.call('SET', KEYS[1], ARGV[1])
return { 'OK', '' }
