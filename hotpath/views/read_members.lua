-- Sessions after step W of given users: {'OK', {session, ...}, {session, ...}, ...} in their order.
-- ARGV: generation, payload {W, {user, ...}}.
local W, users = unpack(cmsgpack.unpack(ARGV[2]))
if live_generation() ~= ARGV[1] then return { 'MOVED' } end
local seen_step = redis.call('HGET', key(ARGV[1], 'state'), 'seen_step')
if not seen_step or tonumber(seen_step) > W then return { 'MOVED' } end
local step_in, answer = steps_of(key(ARGV[1], 'slots'), #users), { 'OK' }
for i, record in ipairs(redis.call('HMGET', key(ARGV[1], 'seen'), unpack(users))) do
  local sessions, members = {}, {}
  if record then sessions = sessions_of(step_in, record) end
  if not sessions then return { 'BROKEN', 'seen' } end
  for at = 1, #sessions, 2 do
    if sessions[at] > W then members[#members + 1] = sessions[at + 1] end
  end
  answer[i + 1] = members
end
return answer
