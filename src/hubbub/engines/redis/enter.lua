-- Put a session into a room.
--   KEYS[6]  the rooms that the node has somebody in, a set
--   ARGV[3]  the user;  ARGV[4]  the session;  ARGV[5]  since when (ms);  ARGV[6]  places;  ARGV[7]  the channel
--   ARGV[8]  the call's name: the same where this is asked for again, because no answer came
-- Returns who is gone, and 1 where the user was not in it, 0 where it was, -1 where the room is full.
local gone = clear()
local user, session = ARGV[3], ARGV[4]
local since, sessions = place_of(user)
if not since and redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[6]) then
  return { gone, -1 }
end
local key = user .. '\0' .. session
local before = redis.call('HGET', KEYS[4], key)
local by, _, call
if before then
  by, _, call = session_of(before)
end
if by == ARGV[2] and call == ARGV[8] then
  return { gone, 1 }
end
if not since then
  redis.call('ZADD', KEYS[3], redis.call('HINCRBY', KEYS[5], '', 1), user)
end
if by then
  uncount(by)
else
  note(user, since or ARGV[5], (sessions or 0) + 1)
end
redis.call('HSET', KEYS[4], key, ARGV[2] .. ' ' .. ARGV[5] .. ' ' .. (since and '' or ARGV[8]))
redis.call('HINCRBY', KEYS[5], ARGV[2], 1)
redis.call('SADD', KEYS[6], ARGV[7])
return { gone, since and 0 or 1 }
