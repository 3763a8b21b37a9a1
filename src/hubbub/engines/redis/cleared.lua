-- Rooms of a dead node have been looked at, and nobody is in them by it any more.
--   KEYS[2]  the nodes, as in nodes.lua
--   KEYS[3]  the rooms that the dead node has somebody in, a set
--   ARGV[3]  the dead node;  ARGV[4] and on  the rooms
-- Returns 1 where there is no more to be done: those were the last; the node is alive again, and has come back into
-- them meanwhile; or leases are not being renewed, so that nobody was taken out (room.lua), and it is for another time.
if tonumber(redis.call('ZSCORE', KEYS[2], ARGV[3]) or '0') > milliseconds or not renewing() then
  return 1
end
for at = 4, #ARGV do
  redis.call('SREM', KEYS[3], ARGV[at])
end
if redis.call('SCARD', KEYS[3]) > 0 then
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[3])
return 1
