-- Remove blobs that nobody has touched for the grace. KEYS: blob index, then blobs   ARGV: grace in ms, then their names
local limit = tonumber(now_ms()) - tonumber(ARGV[1])
local removed = 0
for i = 2, #KEYS do
  local touched = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if touched and tonumber(touched) < limit then
    redis.call('UNLINK', KEYS[i])
    redis.call('ZREM', KEYS[1], ARGV[i])
    removed = removed + 1
  end
end
return removed
