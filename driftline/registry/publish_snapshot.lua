-- Name the state that replicas start from, and forget the pulses that it makes unnecessary. The pulse of the snapshot's
-- own number may follow it (an epoch begins so), also where those before it were lost; where that is not to come, the
-- snapshot goes in place of all that stands here, whoever wrote it.
-- KEYS: fence, fast, pulses, blob index, blob   ARGV: fence, number, sealed snapshot, sha256, how many pulses stay, 1: in place
if tonumber(ARGV[1]) < tonumber(redis.call('GET', KEYS[1]) or 0) then return {'lease_lost'} end
if first_incomplete({KEYS[5]}) then return {'missing_blob'} end
local last = tonumber(redis.call('HGET', KEYS[2], 'number') or 0) or 0
redis.call('HSET', KEYS[2], 'snapshot', ARGV[3], 'blob', ARGV[4])
touch(KEYS[4], {ARGV[4]})
if ARGV[6] == '1' then
  redis.call('HSET', KEYS[2], 'number', ARGV[2])
  redis.call('DEL', KEYS[3])
  return {'done'}
end
local before = tonumber(ARGV[2]) - 1
if before > last then redis.call('HSET', KEYS[2], 'number', string.format('%d', before)) end
redis.pcall('XTRIM', KEYS[3], 'MAXLEN', ARGV[5])
return {'done'}
