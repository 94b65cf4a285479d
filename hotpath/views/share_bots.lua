-- Tells what a log counts of users' page views and learns what the other logs count. Counts only grow, so that
-- telling the same twice changes nothing. KEYS: a hash per (user, second), log_id -> page views.
-- ARGV: payload {log_id, seconds to live, {count, count, ...}}. Returns the others' sums.
local log_id, ttl_s, counts = unpack(cmsgpack.unpack(ARGV[1]))
local others = {}
for i, count in ipairs(counts) do
  local name, sum = KEYS[i], 0
  local known = redis.call('HGETALL', name)
  local mine = 0
  for at = 1, #known, 2 do
    if known[at] == log_id then mine = tonumber(known[at + 1]) else sum = sum + tonumber(known[at + 1]) end
  end
  if count > mine then
    redis.call('HSET', name, log_id, string.format('%d', count))
    redis.call('EXPIRE', name, ttl_s)
  end
  others[i] = sum
end
return others
