-- Keep a version's blobs for good. KEYS: pinned, blob index, then the version's blobs   ARGV: version, then their names
if first_incomplete({unpack(KEYS, 3)}) then return 0 end
touch(KEYS[2], {unpack(ARGV, 2)})
redis.call('SADD', KEYS[1], ARGV[1])
return 1
