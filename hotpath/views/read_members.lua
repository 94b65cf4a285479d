-- Sessions after step W of given users: {'OK', {session, ...}, {session, ...}, ...} in their order.
-- ARGV: generation, payload {W, {user, ...}}.
local W, users = unpack(cmsgpack.unpack(ARGV[2]))
if live_generation() ~= ARGV[1] then return { 'MOVED' } end
local seen_step = redis.call('HGET', key(ARGV[1], 'state'), 'seen_step')
if not seen_step or tonumber(seen_step) > W then return { 'MOVED' } end
local after = '(' .. string.format('%d', W)
local answer = { 'OK' }
for i, user in ipairs(users) do
  answer[i + 1] = redis.call('ZRANGEBYSCORE', key(ARGV[1], 'sessions:' .. user), after, '+inf')
end
return answer
