-- Take a session out of a room; returns 1 where that was the last of its user's.
--   KEYS[6]  the rooms that the node has somebody in, a set
--   ARGV[3]  the user;  ARGV[4]  the session;  ARGV[5]  the channel
clear()
local user, session = ARGV[3], ARGV[4]
local node = redis.call('HGET', KEYS[4], user .. '\0' .. session)
if not node then
  return 0
end
uncount(node)
if node == ARGV[2] and redis.call('HEXISTS', KEYS[5], node) == 0 then
  redis.call('SREM', KEYS[6], ARGV[5])
end
return take_out(user, session) and 1 or 0
