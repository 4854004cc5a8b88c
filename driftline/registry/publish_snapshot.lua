-- Name the state that replicas start from, and forget the pulses that it makes unnecessary. A pulse of the snapshot's
-- own number may follow it (an epoch begins so); where more than that is missing, or the pulse is not to come, the snapshot
-- goes in its place.
-- KEYS: fence, fast, pulses, blob index, blob   ARGV: fence, number, sealed snapshot, sha256, how many pulses stay, 1: in place
if tonumber(ARGV[1]) < tonumber(redis.call('GET', KEYS[1]) or 0) then return {'lease_lost'} end
if first_incomplete({KEYS[5]}) then return {'missing_blob'} end
local last = tonumber(redis.call('HGET', KEYS[2], 'number') or 0)
redis.call('HSET', KEYS[2], 'snapshot', ARGV[3], 'blob', ARGV[4])
if tonumber(ARGV[2]) > last + 1 - tonumber(ARGV[6]) then redis.call('HSET', KEYS[2], 'number', ARGV[2]) end
redis.call('XTRIM', KEYS[3], 'MAXLEN', ARGV[5])
touch(KEYS[4], {ARGV[4]})
return {'done'}
