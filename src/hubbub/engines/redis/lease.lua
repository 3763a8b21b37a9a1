-- Say that the node is alive, and find those that are not.
--   KEYS[2]  the nodes, as in nodes.lua
--   ARGV[3]  milliseconds until the node has to say so again
-- Returns 1 where the node was taken for alive until now, the generation of the data, and those nodes that are dead and
-- have not been cleared away.
local lease = tonumber(ARGV[3])
local mine = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[2]) or '0')
local newest, asleep = newest_lease(), not renewing()
if store[4] ~= ARGV[3] then
  redis.call('HSET', KEYS[1], 'lease', ARGV[3])
end
-- While Redis was away, or took nothing, nobody could renew a lease. A node that is new cannot tell that from nodes that
-- are all dead, unless the server has been started since.
local forgiven = asleep and (mine > 0 or tonumber(store[5] or '0') > newest - lease)
if forgiven then
  for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(0', '+inf')) do
    redis.call('ZADD', KEYS[2], digits(milliseconds + lease), node)
  end
end
redis.call('ZADD', KEYS[2], digits(milliseconds + lease), ARGV[2])
local found = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', digits(milliseconds), 'LIMIT', 0, 100)
table.insert(found, 1, store[2])
table.insert(found, 1, mine > 0 and (forgiven or mine > milliseconds) and 1 or 0)
return found
