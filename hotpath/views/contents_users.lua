-- Users with all that is stored of them: {'OK', {score in users, record, rank, step, step, ...}, ...} in their order, with
-- the steps of the record's sessions as far as it is one; '' for what there is not.
-- ARGV: generation, payload {user, ...}.
local users = cmsgpack.unpack(ARGV[2])
if live_generation() ~= ARGV[1] then return { 'MOVED' } end
local _, wrong = wrong_part(ARGV[1], { 'users', 'seen', 'slots', 'ranked' })
if wrong then return { 'BROKEN', wrong } end
local scores = redis.call('ZMSCORE', key(ARGV[1], 'users'), unpack(users))
local records = redis.call('HMGET', key(ARGV[1], 'seen'), unpack(users))
local ranks = redis.call('ZMSCORE', key(ARGV[1], 'ranked'), unpack(users))
local step_in, found = steps_of(key(ARGV[1], 'slots'), #users), { 'OK' }
for i = 1, #users do
  local record, at = records[i] or '', 1
  local entry = { scores[i] or '', record, ranks[i] or '' }
  while at <= #record do
    local slot, _, last = session_at(record, at)
    if not slot then break end
    entry[#entry + 1] = step_in(slot) or ''
    at = last + 1
  end
  found[i + 1] = entry
end
return found
