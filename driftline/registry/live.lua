-- What the scripts share; put in front of each. Scripts run alone: all of one happens, or nothing of it.
-- Every check comes before the first write, because Redis does not undo what a failing script has written.

local function now_ms()
  local t = redis.call('TIME')
  return string.format('%d', t[1] * 1000 + math.floor(t[2] / 1000))
end

local function read_live(key)
  local live = {}
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do live[flat[i]] = flat[i + 1] end
  for _, name in ipairs({'version', 'revision', 'anchor', 'notes'}) do live[name] = tonumber(live[name] or 0) end
  return live
end

-- A blob is a hash of numbered chunks, plus `chunks` and `bytes`, which are written last.
local function first_incomplete(blobs)
  for i, blob in ipairs(blobs) do
    local chunks = redis.call('HGET', blob, 'chunks')
    if not chunks or redis.call('HLEN', blob) ~= tonumber(chunks) + 2 then return i end
  end
  return nil
end

local function touch(index, names)
  for _, name in ipairs(names) do redis.call('ZADD', index, now_ms(), name) end
end

-- The first write of every change: fails, with nothing written, if the audit is ahead of the live record.
local function write_audit(key, id, entry)
  local added = redis.pcall('XADD', key, id, 'action', entry.action, 'version', entry.version,
    'from_version', entry.from_version, 'revision', entry.revision, 'actor', entry.actor,
    'reason', entry.reason, 'at', entry.at)
  if type(added) == 'table' and added.err then
    if string.find(added.err, 'equal or smaller', 1, true) then return {'lost'} end
    return added
  end
  return nil
end

-- Make `change.version` live under the next revision. The only place that does.
local function change_live(keys, live, change)
  local revision = live.revision + 1
  local failed = write_audit(keys.audit, revision .. '-0', {
    action = change.action, version = change.version, from_version = live.version, revision = revision,
    actor = change.actor, reason = change.reason, at = change.at})
  if failed then return failed end
  if change.version ~= 0 and change.version ~= live.version then
    redis.call('HSETNX', keys.before, change.version, live.version)
  end
  if change.anchor ~= live.anchor then redis.call('HSETNX', keys.before, 'anchor:' .. change.anchor, live.anchor) end
  redis.call('HSET', keys.live, 'version', change.version, 'revision', revision, 'anchor', change.anchor,
    'changed_at', change.at, 'actor', change.actor, 'notes', 0)
  return nil
end
