-- Say that the node is alive, and find those that are not.
--   KEYS[2]  the nodes, a sorted set: until when each is taken for alive (ms)
--   ARGV[3]  milliseconds until the node has to say so again
-- Returns 1 where the node was alive until now, the generation of the data, and those nodes that are dead and have not
-- been cleared away.
local milliseconds = math.floor(microseconds() / 1000)
local until_now = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[2]) or '0')
redis.call('ZADD', KEYS[2], digits(milliseconds + tonumber(ARGV[3])), ARGV[2])
local found = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', digits(milliseconds), 'LIMIT', 0, 100)
table.insert(found, 1, store[2])
table.insert(found, 1, until_now > milliseconds and 1 or 0)
return found
