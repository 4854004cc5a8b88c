-- Pause or resume automatic promotion. A pause of what is paused keeps the first reason. The revision stays (the version does); the audit id is <revision>-<1, 2, …>.
-- KEYS: live, audit   ARGV: the call as JSON
local call = cjson.decode(ARGV[1])
local live = read_live(KEYS[1])

if live.request == call.request then return {'done', redis.call('HGETALL', KEYS[1])} end
local note = live.notes + 1
local failed = write_audit(KEYS[2], live.revision .. '-' .. note, {
  action = call.action, version = live.version, from_version = live.version, revision = live.revision,
  actor = call.actor, reason = call.reason, at = call.at})
if failed then return failed end
if call.pause and live.paused ~= '1' then
  redis.call('HSET', KEYS[1], 'paused', 1, 'pause_reason', call.reason)
elseif not call.pause then
  redis.call('HSET', KEYS[1], 'paused', 0)
  redis.call('HDEL', KEYS[1], 'pause_reason')
end
redis.call('HSET', KEYS[1], 'notes', note, 'request', call.request)
return {'done', redis.call('HGETALL', KEYS[1])}
