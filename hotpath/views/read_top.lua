-- The pages with the greatest stored sums: {'OK', least of their sums or 0 when these are all, page, page, ...}.
-- A stored sum may still hold steps up to W, so it bounds a page's views from above. ARGV: generation, {W, n}.
local W, n = unpack(cmsgpack.unpack(ARGV[2]))
if live_generation() ~= ARGV[1] then return { 'MOVED' } end
local base_step = redis.call('HGET', key(ARGV[1], 'state'), 'base_step')
if not base_step or tonumber(base_step) > W then return { 'MOVED' } end
local pages_key = key(ARGV[1], 'pages')
local pages = redis.call('ZREVRANGE', pages_key, 0, n - 1)
local least = 0
if #pages == n then least = tonumber(redis.call('ZSCORE', pages_key, pages[n])) end
table.insert(pages, 1, 'OK')
table.insert(pages, 2, least)
return pages
