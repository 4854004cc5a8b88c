-- Take a free lease under the next fence. KEYS: lease, fence   ARGV: token, time to live in ms
-- nil: the fence is no number that can rise (beyond 2^53 Lua would compare rounded numbers).
local held = redis.call('HGET', KEYS[1], 'token')
if held and held ~= ARGV[1] then return 0 end
if not held then
  local given = tonumber(redis.call('GET', KEYS[2]) or 0)
  if not given or given < 0 or given >= 9007199254740991 then return nil end
  redis.call('HSET', KEYS[1], 'token', ARGV[1], 'fence', redis.call('INCR', KEYS[2]))
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return tonumber(redis.call('HGET', KEYS[1], 'fence') or nil)
