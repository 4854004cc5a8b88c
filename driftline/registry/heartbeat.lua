-- Note a replica's status with the server's time; drop who has been silent. KEYS: replicas   ARGV: name, status, forget ms
local now = now_ms()
redis.call('HSET', KEYS[1], ARGV[1], now .. ' ' .. ARGV[2])
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local seen = tonumber(string.match(all[i + 1], '^(%d+) ') or 0)
  if tonumber(now) - seen > tonumber(ARGV[3]) then redis.call('HDEL', KEYS[1], all[i]) end
end
return 'OK'
