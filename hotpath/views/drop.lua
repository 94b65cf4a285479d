-- Deletes a generation that is not live, one bounded piece a call, its state first: from then on no script
-- writes to it. ARGV: generation, payload {keys a call}. Returns {'OK', '1'} while more is to be done.
local generation = ARGV[1]
if live_generation() == generation then return { 'MOVED', generation } end
redis.call('UNLINK', key(generation, 'state'))
local steps_key = key(generation, 'steps')
-- Without this list the rest can only be found by scanning all keys.
if not is_type(steps_key, 'zset') then return { 'BROKEN', steps_key } end
local keys_max = cmsgpack.unpack(ARGV[2])[1]
local steps = redis.call('ZRANGE', steps_key, 0, keys_max - 1)
for _, step in ipairs(steps) do
  redis.call('UNLINK', key(generation, 'pages:' .. step))
  redis.call('ZREM', steps_key, step)
end
if #steps == keys_max then return { 'OK', '1' } end
for name in pairs(TYPES) do
  redis.call('UNLINK', key(generation, name))
end
return { 'OK', '0' }
