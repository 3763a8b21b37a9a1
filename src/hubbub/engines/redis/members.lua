-- The first users of a room, in the order of coming, and how many there are.
--   ARGV[4]  how many at most
-- Returns who is gone, how many there are, then user, since when (ms) and sessions of each.
local gone = clear()
local found = { gone, redis.call('ZCARD', KEYS[3]) }
local limit = tonumber(ARGV[4])
if limit > 0 then
  for _, user in ipairs(redis.call('ZRANGE', KEYS[3], 0, limit - 1)) do
    local since, sessions = place_of(user)
    found[#found + 1] = user
    found[#found + 1] = tonumber(since)
    found[#found + 1] = sessions
  end
end
return found
