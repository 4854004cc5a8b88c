-- Append one pulse, the next by its number. KEYS: fence, fast, pulses   ARGV: fence, number, sealed pulse
-- What stands here is believed only where it agrees: anything else is a gap, and whoever publishes looks what is signed.
if tonumber(ARGV[1]) < tonumber(redis.call('GET', KEYS[1]) or 0) then return {'lease_lost'} end
local last = tonumber(redis.call('HGET', KEYS[2], 'number') or 0) or 0
local number, id = tonumber(ARGV[2]), ARGV[2] .. '-0'
if number == last then
  local there = redis.pcall('XRANGE', KEYS[3], id, id)
  if there[1] and there[1][2][2] == ARGV[3] then return {'duplicate'} end
end
if number ~= last + 1 then return {'gap', tostring(last)} end
local added = redis.pcall('XADD', KEYS[3], id, 'pulse', ARGV[3])
if type(added) == 'table' and added.err then  -- somebody damaged it: replicas that need what was there take the snapshot
  redis.call('DEL', KEYS[3])
  redis.call('XADD', KEYS[3], id, 'pulse', ARGV[3])
end
redis.call('HSET', KEYS[2], 'number', ARGV[2])
return {'done'}
