-- Take a session out of a room; returns who is gone, 1 where that was the last of its user's, and 1 where it was in by
-- the call ARGV[9], which had brought the user in.
--   KEYS[7]  the rooms that the node has somebody in, a set;  KEYS[8]  when the user was seen last (ms)
--   KEYS[9]  what became of this very call: it is asked for again where no answer came
--   ARGV[4]  the user;  ARGV[5]  the session;  ARGV[6]  the channel
--   ARGV[7]  when the user was seen (ms), to be noted with the last session, or 0;  ARGV[8]  for how long (ms)
--   ARGV[9]  the call by which the session came, where nobody was told of that, or nothing
local gone = clear()
local user, session = ARGV[4], ARGV[5]
local noted = redis.call('HGET', KEYS[4], user .. '\0' .. session)
if not noted then
  local before = redis.call('GET', KEYS[9])
  return { gone, before and 1 or 0, before == '1' and 1 or 0 }
end
local node, _, call = session_of(noted)
local untold = ARGV[9] ~= '' and node == ARGV[2] and call == ARGV[9] and 1 or 0
uncount(node)
if node == ARGV[2] and redis.call('HEXISTS', KEYS[5], node) == 0 then
  redis.call('SREM', KEYS[7], ARGV[6])
end
if not take_out(user, session) then
  return { gone, 0, untold }
end
if ARGV[7] ~= '0' then
  redis.call('SET', KEYS[8], ARGV[7], 'PX', ARGV[8])
end
redis.call('SET', KEYS[9], untold, 'PX', KNOWN)
return { gone, 1, untold }
