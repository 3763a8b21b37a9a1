-- Take a session out of a room; returns who is gone, 1 where that was the last of its user's, and 1 where it was in by
-- the call ARGV[8], which had brought the user in.
--   KEYS[6]  the rooms that the node has somebody in, a set;  KEYS[7]  when the user was seen last (ms)
--   KEYS[8]  what became of this very call: it is asked for again where no answer came
--   ARGV[3]  the user;  ARGV[4]  the session;  ARGV[5]  the channel
--   ARGV[6]  when the user was seen (ms), to be noted with the last session, or 0;  ARGV[7]  for how long (ms)
--   ARGV[8]  the call by which the session came, where nobody was told of that, or nothing
--   ARGV[9]  for how long (ms) it is known what became of the call
local gone = clear()
local user, session = ARGV[3], ARGV[4]
local noted = redis.call('HGET', KEYS[4], user .. '\0' .. session)
if not noted then
  local before = redis.call('GET', KEYS[8])
  return { gone, before and 1 or 0, before == '1' and 1 or 0 }
end
local node, _, call = session_of(noted)
local untold = ARGV[8] ~= '' and node == ARGV[2] and call == ARGV[8] and 1 or 0
uncount(node)
if node == ARGV[2] and redis.call('HEXISTS', KEYS[5], node) == 0 then
  redis.call('SREM', KEYS[6], ARGV[5])
end
if not take_out(user, session) then
  return { gone, 0, untold }
end
if ARGV[6] ~= '0' then
  redis.call('SET', KEYS[7], ARGV[6], 'PX', ARGV[7])
end
redis.call('SET', KEYS[8], untold, 'PX', ARGV[9])
return { gone, 1, untold }
