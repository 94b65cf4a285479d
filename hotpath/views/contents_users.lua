-- Users with all that is stored of them: {'OK', {score in users, record, rank}, ...} in their order, '' for what
-- there is not. ARGV: generation, payload {user, ...}.
local users = cmsgpack.unpack(ARGV[2])
if live_generation() ~= ARGV[1] then return { 'MOVED' } end
for _, name in ipairs({ 'users', 'seen', 'ranked' }) do
  if wrong_list(ARGV[1], { name }) then return { 'BROKEN', name } end
end
local scores = redis.call('ZMSCORE', key(ARGV[1], 'users'), unpack(users))
local records = redis.call('HMGET', key(ARGV[1], 'seen'), unpack(users))
local ranks = redis.call('ZMSCORE', key(ARGV[1], 'ranked'), unpack(users))
local found = { 'OK' }
for i = 1, #users do
  found[i + 1] = { scores[i] or '', records[i] or '', ranks[i] or '' }
end
return found
