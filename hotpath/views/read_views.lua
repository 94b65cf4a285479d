-- Page views after step W of given pages: {'OK', n, n, ...} in their order. ARGV: generation, {W, {page, ...}}.
local W, pages = unpack(cmsgpack.unpack(ARGV[2]))
if live_generation() ~= ARGV[1] then return { 'MOVED' } end
local base_step = redis.call('HGET', key(ARGV[1], 'state'), 'base_step')
if not base_step or tonumber(base_step) > W then return { 'MOVED' } end
local views = redis.call('ZMSCORE', key(ARGV[1], 'pages'), unpack(pages))
for i = 1, #pages do views[i] = tonumber(views[i] or 0) end
local left = redis.call('ZRANGEBYSCORE', key(ARGV[1], 'steps'), '-inf', W)
for _, step in ipairs(left) do
  local of_step = redis.call('HMGET', key(ARGV[1], 'pages:' .. step), unpack(pages))
  for i = 1, #pages do
    local count = tonumber(of_step[i] or 0)
    if not count then return { 'BROKEN', 'pages:' .. step } end
    views[i] = views[i] - count
  end
end
table.insert(views, 1, 'OK')
return views
