-- The next version number, and the last one given before. KEYS: counter, feeds, manifests   ARGV: feed, above
-- A number that a manifest stands under is skipped: the counter was set back. nil: the counter is no number that can rise.
local given = tonumber(redis.call('GET', KEYS[1]) or 0)
if not given or given < 0 or given >= 1000000000 then return nil end
local number = math.max(given, tonumber(ARGV[2])) + 1
while redis.call('HEXISTS', KEYS[3], string.format('%d', number)) == 1 do number = number + 1 end
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('SET', KEYS[1], string.format('%d', number))
return {number, given}
