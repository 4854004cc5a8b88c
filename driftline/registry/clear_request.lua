-- Forget a request for an update, unless another one was made since. KEYS: request   ARGV: the request
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
