-- An admin makes a registered version live: promote or rollback. The same path as a promotion (`change_live`).
-- KEYS: live, audit, promoted-before, blob index, then the blobs that must be there
-- ARGV: the call as JSON
local live_key, audit, before, index = unpack(KEYS, 1, 4)
local blobs = {unpack(KEYS, 5)}
local call = cjson.decode(ARGV[1])
local live = read_live(live_key)

if live.request == call.request then return {'done', redis.call('HGETALL', live_key)} end
if call.expected_revision ~= live.revision then return {'conflict', live.revision} end
local gap = first_incomplete(blobs)
if gap then return {'missing_blob', call.blobs[gap]} end

local failed = change_live({live = live_key, audit = audit, before = before}, live, call)
if failed then return failed end
if call.pause then redis.call('HSET', live_key, 'paused', 1, 'pause_reason', call.reason) end
redis.call('HSET', live_key, 'request', call.request)
touch(index, call.blobs)
return {'done', redis.call('HGETALL', live_key)}
