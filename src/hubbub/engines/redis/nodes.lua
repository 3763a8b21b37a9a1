-- Stands behind common.lua in every script about nodes:
--   KEYS[2]  the nodes, a sorted set: until when each is taken for alive (ms), or 0 for one that has been cleared out of
--            some room: it is dead, and has to come back where it turns out not to be
local milliseconds = math.floor(microseconds() / 1000)

-- Until when the node is taken for alive that has said so last.
local function newest_lease()
  return tonumber(redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2] or '0')
end

-- Whether leases are being renewed: some node does so within a quarter of one. Where none has, for a third, nobody could,
-- and nobody is dead for that.
local function renewing()
  return newest_lease() >= milliseconds + tonumber(store[4] or '0') * 2 / 3
end
