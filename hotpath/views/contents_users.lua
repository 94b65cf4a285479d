-- Users with all that is stored of them: {'OK', entry, entry, ...} in their order. An entry is {} for a user who is
-- nowhere, else {last-seen step, rank, fading step ('' where there is none), session, step, session, step, ...}, or
-- {.., .., .., 'BROKEN'} where the key of the sessions is not what it must be. ARGV: generation, payload {user, ...}.
local users = cmsgpack.unpack(ARGV[2])
if live_generation() ~= ARGV[1] then return { 'MOVED' } end
local scores = {}
for i, name in ipairs({ 'users', 'ranked', 'fading' }) do
  if not is_type(key(ARGV[1], name), 'zset') then return { 'BROKEN', name } end
  scores[i] = redis.call('ZMSCORE', key(ARGV[1], name), unpack(users))
end
local found = { 'OK' }
for i, user in ipairs(users) do
  local entry = {}
  local last_seen, rank, fading = scores[1][i], scores[2][i], scores[3][i]
  if last_seen or rank or fading then
    local sessions_key = key(ARGV[1], 'sessions:' .. user)
    if is_type(sessions_key, 'zset') then
      entry = redis.call('ZRANGE', sessions_key, 0, -1, 'WITHSCORES')
    else
      entry = { 'BROKEN' }
    end
    for _, score in ipairs({ fading or '', rank or '', last_seen or '' }) do table.insert(entry, 1, score) end
  end
  found[#found + 1] = entry
end
return found
