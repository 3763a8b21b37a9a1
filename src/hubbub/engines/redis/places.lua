-- The sessions by which a user is in a room.
--   ARGV[4]  the user
-- Returns who is gone, then session, node and since when (ms) of each.
local found = { clear() }
-- Only where there is anything to be found: it may be a large room.
local places = place_of(ARGV[4]) and redis.call('HGETALL', KEYS[4]) or {}
for at = 1, #places, 2 do
  local user, session = string.match(places[at], '^(%Z+)%z(.*)$')
  if user == ARGV[4] then
    local node, since = session_of(places[at + 1])
    found[#found + 1] = session
    found[#found + 1] = node
    found[#found + 1] = tonumber(since)
  end
end
return found
