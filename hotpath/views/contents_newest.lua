-- How many users have a record, and how many of them were last seen in each step, of one moment:
-- {'OK', users, step, users, step, users, ...}. ARGV: generation, payload {}.
if live_generation() ~= ARGV[1] then return { 'MOVED' } end
local _, wrong = wrong_part(ARGV[1], { 'seen', 'newest' })
if wrong then return { 'BROKEN', wrong } end
local found = redis.call('HGETALL', key(ARGV[1], 'newest'))
table.insert(found, 1, redis.call('HLEN', key(ARGV[1], 'seen')))
table.insert(found, 1, 'OK')
return found
