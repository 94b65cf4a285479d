-- Users last seen after step W: {'OK', count}; or who of them are among up to `count` users after `last` ('' for the
-- first): {'OK', where to go on ('' for nowhere), user, user, ...}. ARGV: generation, payload {W} or {W, last, count}.
local W, last, count = unpack(cmsgpack.unpack(ARGV[2]))
if live_generation() ~= ARGV[1] then return { 'MOVED' } end
local seen_step = redis.call('HGET', key(ARGV[1], 'state'), 'seen_step')
if not seen_step or tonumber(seen_step) > W then return { 'MOVED' } end
if not count then
  local newest, active = newest_of(ARGV[1]), 0
  if not newest then return { 'BROKEN', 'newest' } end
  for i = 1, #newest, 2 do
    if newest[i] > W then active = active + newest[i + 1] end
  end
  return { 'OK', active }
end
local users, records = users_after(ARGV[1], last, count)
local step_in = steps_of(key(ARGV[1], 'slots'), #users)
local answer = { 'OK', #users == count and users[count] or '' }
for i, user in ipairs(users) do
  local newest = counts_of(step_in, records[i], W)
  if not newest then return { 'BROKEN', 'seen' } end
  if newest > W then answer[#answer + 1] = user end
end
return answer
