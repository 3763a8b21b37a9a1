-- Take a session out of a room; returns who is gone, and 1 where that was the last of its user's.
--   KEYS[6]  the rooms that the node has somebody in, a set;  KEYS[7]  when the user was seen last (ms)
--   ARGV[3]  the user;  ARGV[4]  the session;  ARGV[5]  the channel
--   ARGV[6]  when the user was seen (ms), to be noted with the last session, or 0;  ARGV[7]  for how long (ms)
local gone = clear()
local user, session = ARGV[3], ARGV[4]
local noted = redis.call('HGET', KEYS[4], user .. '\0' .. session)
if not noted then
  return { gone, 0 }
end
local node = session_of(noted)
uncount(node)
if node == ARGV[2] and redis.call('HEXISTS', KEYS[5], node) == 0 then
  redis.call('SREM', KEYS[6], ARGV[5])
end
if not take_out(user, session) then
  return { gone, 0 }
end
if ARGV[6] ~= '0' then
  redis.call('SET', KEYS[7], ARGV[6], 'PX', ARGV[7])
end
return { gone, 1 }
