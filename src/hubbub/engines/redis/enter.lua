-- Put a session into a room.
--   KEYS[7]  the rooms that the node has somebody in, a set
--   ARGV[4]  the user;  ARGV[5]  the session;  ARGV[6]  since when (ms);  ARGV[7]  places;  ARGV[8]  the channel
-- Returns who is gone, and 1 where the user was not in it, 0 where it was, -1 where the room is full.
local gone = clear()
local call, user, session = ARGV[3], ARGV[4], ARGV[5]
local since, sessions = place_of(user)
if not since and redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[7]) then
  return { gone, -1 }
end
local key = user .. '\0' .. session
local before = redis.call('HGET', KEYS[4], key)
local by, _, came_by
if before then
  by, _, came_by = session_of(before)
end
if by == ARGV[2] and came_by == call then
  return { gone, 1 }
end
if not since then
  redis.call('ZADD', KEYS[3], redis.call('HINCRBY', KEYS[5], '', 1), user)
end
if by then
  uncount(by)
else
  note(user, since or ARGV[6], (sessions or 0) + 1)
end
redis.call('HSET', KEYS[4], key, ARGV[2] .. ' ' .. ARGV[6] .. ' ' .. (since and '' or call))
redis.call('HINCRBY', KEYS[5], ARGV[2], 1)
redis.call('SADD', KEYS[7], ARGV[8])
return { gone, since and 0 or 1 }
