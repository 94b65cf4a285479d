-- Sessions of a user last seen after step W: {'OK', session, step, session, step, ...}.
-- ARGV: generation, payload {W, user}.
local W, user = unpack(cmsgpack.unpack(ARGV[2]))
if live_generation() ~= ARGV[1] then return { 'MOVED' } end
local seen_step = redis.call('HGET', key(ARGV[1], 'state'), 'seen_step')
if not seen_step or tonumber(seen_step) > W then return { 'MOVED' } end
local answer = { 'OK' }
local record = redis.call('HGET', key(ARGV[1], 'seen'), user)
if not record then return answer end
local sessions = sessions_of(steps_of(key(ARGV[1], 'slots'), 1), record)
if not sessions then return { 'BROKEN', 'seen' } end
for i = 1, #sessions, 2 do
  if sessions[i] > W then
    answer[#answer + 1] = sessions[i + 1]
    answer[#answer + 1] = sessions[i]
  end
end
return answer
