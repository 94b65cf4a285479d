-- Users last seen after step W: {'OK', count}, or with members wanted {'OK', user, user, ...}.
-- ARGV: generation, payload {W, members wanted}.
local W, wanted = unpack(cmsgpack.unpack(ARGV[2]))
if live_generation() ~= ARGV[1] then return { 'MOVED' } end
local seen_step = redis.call('HGET', key(ARGV[1], 'state'), 'seen_step')
if not seen_step or tonumber(seen_step) > W then return { 'MOVED' } end
local after = '(' .. string.format('%d', W)
if not wanted then return { 'OK', redis.call('ZCOUNT', key(ARGV[1], 'users'), after, '+inf') } end
local users = redis.call('ZRANGEBYSCORE', key(ARGV[1], 'users'), after, '+inf')
table.insert(users, 1, 'OK')
return users
