-- A node has come to a server: is what the nodes have told people still there?
--   KEYS[1]  the store, as in common.lua
--   ARGV[1]  the run of the server;  ARGV[2]  the node
--   ARGV[3]  the run on which the node was last, or nothing;  ARGV[4]  how many publications it had seen there
--   ARGV[5]  the word for telling, and ARGV[6]  the bus of all nodes
-- The first to come to another run notes what there is, each who comes later compares. Where the store has seen fewer
-- publications than somebody has told of, it gets another generation, and with it each channel another epoch.
-- Returns how many publications the store has seen.
local count = tonumber(store[3] or '0')
local milliseconds = math.floor(microseconds() / 1000)

local lost = not store[2]
if store[1] ~= ARGV[1] then
  if redis.call('HLEN', KEYS[1]) > 300 then
    -- Of more restarts than anybody can have been away for: who asks for one of them is told that it is lost.
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], 'count', digits(count))
    lost = true
  end
  if store[1] then
    redis.call('HSET', KEYS[1], 'after ' .. store[1], digits(count))
  end
  redis.call('HSET', KEYS[1], 'run', ARGV[1], 'since', digits(milliseconds))
end
if ARGV[3] ~= '' and ARGV[3] ~= ARGV[1] then
  local left = redis.call('HGET', KEYS[1], 'after ' .. ARGV[3])
  lost = lost or not left or tonumber(left) < tonumber(ARGV[4])
elseif ARGV[3] ~= '' then
  lost = lost or count < tonumber(ARGV[4])
end
if lost then
  redis.call('HSET', KEYS[1], 'generation', unique())
  -- Everything that nodes have seen up to now is accounted for.
  if ARGV[3] ~= '' and ARGV[3] ~= ARGV[1] then
    redis.call('HSET', KEYS[1], 'after ' .. ARGV[3], '9007199254740992')
  end
  redis.call(ARGV[5], ARGV[6], 'lost')
end
return count
