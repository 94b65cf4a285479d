-- Sessions of a user last seen after step W: {'OK', session, step, session, step, ...}.
-- ARGV: generation, payload {W, user}.
local W, user = unpack(cmsgpack.unpack(ARGV[2]))
if live_generation() ~= ARGV[1] then return { 'MOVED' } end
local seen_step = redis.call('HGET', key(ARGV[1], 'state'), 'seen_step')
if not seen_step or tonumber(seen_step) > W then return { 'MOVED' } end
local found = redis.call('ZRANGEBYSCORE', key(ARGV[1], 'sessions:' .. user), '(' .. string.format('%d', W),
  '+inf', 'WITHSCORES')
table.insert(found, 1, 'OK')
return found
