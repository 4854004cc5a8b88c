-- Take a free lease under the next fence. KEYS: lease, fence   ARGV: token, time to live in ms
local held = redis.call('HGET', KEYS[1], 'token')
if held and held ~= ARGV[1] then return 0 end
if not held then
  redis.call('HSET', KEYS[1], 'token', ARGV[1], 'fence', redis.call('INCR', KEYS[2]))
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return tonumber(redis.call('HGET', KEYS[1], 'fence'))
