-- Whether pages are counted alike in both places: {'OK', stored sum, sum of the hashes, stored sum, ...} for the
-- pages in their order. ARGV: generation, payload {page, page, ...}.
local pages = cmsgpack.unpack(ARGV[2])
if live_generation() ~= ARGV[1] then return { 'MOVED' } end
local pages_key, steps_key = key(ARGV[1], 'pages'), key(ARGV[1], 'steps')
if not is_type(pages_key, 'zset') then return { 'BROKEN', 'pages' } end
if not is_type(steps_key, 'zset') then return { 'BROKEN', 'steps' } end
local stored, sums = redis.call('ZMSCORE', pages_key, unpack(pages)), {}
for i = 1, #pages do sums[i] = 0 end
for _, step in ipairs(redis.call('ZRANGE', steps_key, 0, -1)) do
  local step_key = key(ARGV[1], 'pages:' .. step)
  if not is_type(step_key, 'hash') then return { 'BROKEN', 'pages:' .. step } end
  for i, views in ipairs(redis.call('HMGET', step_key, unpack(pages))) do
    sums[i] = sums[i] + (tonumber(views or 0) or 0)
  end
end
local found = { 'OK' }
for i = 1, #pages do
  found[#found + 1] = tonumber(stored[i] or 0)
  found[#found + 1] = sums[i]
end
return found
