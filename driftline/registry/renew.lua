-- Keep a lease. One that ran out during an outage is taken up again if nobody had it since (the fence has not moved).
-- KEYS: lease, fence   ARGV: token, time to live in ms, fence
local held = redis.call('HGET', KEYS[1], 'token')
if held and held ~= ARGV[1] then return 0 end
if not held then
  if redis.call('GET', KEYS[2]) ~= ARGV[3] then return 0 end
  redis.call('HSET', KEYS[1], 'token', ARGV[1], 'fence', ARGV[3])
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
