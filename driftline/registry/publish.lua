-- Register a candidate and, if its decision says so, make it live (DESIGN §3.6).
-- KEYS: fence, live, manifests, cycles, audit, promoted-before, blob index, then the manifest's blobs
-- ARGV: the call as JSON, the signed manifest
local fence, live_key, manifests, cycles, audit, before, index = unpack(KEYS, 1, 7)
local blobs = {unpack(KEYS, 8)}
local call = cjson.decode(ARGV[1])
local live = read_live(live_key)

if call.fence < tonumber(redis.call('GET', fence) or 0) then return {'lease_lost'} end
local known = redis.call('HGET', cycles, call.cycle_id)
if known then return {'duplicate', known} end
local gap = first_incomplete(blobs)
if gap then return {'missing_blob', call.blobs[gap]} end
if call.promote and live.paused == '1' then return {'paused', live.revision} end
if call.promote and call.expected_revision ~= live.revision then return {'conflict', live.revision} end
if redis.call('HEXISTS', manifests, call.version) == 1 then return {'version_taken'} end

local status, revision = 'rejected', live.revision
if call.promote then
  local failed = change_live({live = live_key, audit = audit, before = before}, live, {
    action = 'promoted', version = call.version, anchor = call.becomes_anchor and call.version or live.anchor,
    actor = call.actor, reason = call.reason, at = call.at})
  if failed then return failed end
  status, revision = 'promoted', live.revision + 1
end
local outcome = cjson.encode({status = status, version = call.version, revision = revision})
redis.call('HSET', manifests, call.version, ARGV[2])
redis.call('HSET', cycles, call.cycle_id, outcome)
touch(index, call.blobs)
return {'done', outcome}
