-- The next version number, and the last one given before. KEYS: counter, feeds   ARGV: feed, above
local given = tonumber(redis.call('GET', KEYS[1]) or 0)
local number = math.max(given, tonumber(ARGV[2])) + 1
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('SET', KEYS[1], string.format('%d', number))
return {number, given}
