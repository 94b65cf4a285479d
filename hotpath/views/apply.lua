-- Adds page views exactly once: compares `applied` with the piece's first offset and sets it to its next.
-- ARGV: generation, payload, 'building' or 'live'. payload: {first, next, ticket, watermark_s,
-- {{step, {page_url, n, page_url, n, ...}}, ...}}; first and next are decimal strings (no double touches them).
-- Scripts are not rolled back: everything is checked before the first write.
local generation = ARGV[1]
if ARGV[3] == 'live' then
  local live = live_generation()
  if live ~= generation then return { 'MOVED', live } end
end
local state_key = key(generation, 'state')
if not is_type(state_key, 'hash') then return { 'BROKEN', state_key } end
local state = redis.call('HMGET', state_key, 'applied', 'base_step', 'touched', 'watermark_s')
local applied, base_step = state[1], tonumber(state[2])
if not applied then return { 'EMPTY', '' } end
local first, target, ticket, watermark_s, counts = unpack(cmsgpack.unpack(ARGV[2]))
if applied == target then return { 'ALREADY', applied } end
if applied ~= first then return { 'OTHER', applied } end
if ticket ~= '' and ticket ~= state[3] then return { 'TORN', applied } end

local pages_key, steps_key = key(generation, 'pages'), key(generation, 'steps')
if not is_type(pages_key, 'zset') then return { 'BROKEN', pages_key } end
if not is_type(steps_key, 'zset') then return { 'BROKEN', steps_key } end
-- One command for all pages of a step, and one for each page: an HINCRBY for each page of each step costs twice as much.
local sums, pages = {}, {} -- page -> views more; the pages in their order
local writes = {} -- {key of the step, step, {page, views, ...}}
for _, of_step in ipairs(counts) do
  local step, increments = of_step[1], of_step[2]
  local step_key = key(generation, 'pages:' .. string.format('%d', step))
  if not is_type(step_key, 'hash') then return { 'BROKEN', step_key } end
  if step > base_step then
    local names = {}
    for i = 1, #increments, 2 do names[#names + 1] = increments[i] end
    local fields = {}
    for i, stored in ipairs(redis.call('HMGET', step_key, unpack(names))) do
      local page, more = names[i], increments[2 * i]
      stored = tonumber(stored or 0)
      if not stored or type(more) ~= 'number' then return { 'BROKEN', step_key } end
      fields[2 * i - 1] = page
      fields[2 * i] = stored + more
      if not sums[page] then pages[#pages + 1] = page end
      sums[page] = (sums[page] or 0) + more
    end
    writes[#writes + 1] = { step_key, step, fields }
  end
end

for _, write in ipairs(writes) do
  redis.call('HSET', write[1], unpack(write[3]))
  redis.call('ZADD', steps_key, write[2], write[2])
end
for _, page in ipairs(pages) do redis.call('ZINCRBY', pages_key, sums[page], page) end
redis.call('HSET', state_key, 'applied', target)
if watermark_s > tonumber(state[4]) then
  redis.call('HSET', state_key, 'watermark_s', string.format('%.0f', watermark_s))
end
return { 'OK', target }
