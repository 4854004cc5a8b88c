-- Store fields of a blob and note that it is in use. The index first: what is not in it is never collected.
-- KEYS: blob, blob index   ARGV: sha256, then field, value, …
redis.call('ZADD', KEYS[2], now_ms(), ARGV[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 'OK'
