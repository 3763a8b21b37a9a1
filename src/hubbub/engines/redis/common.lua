-- Stands before every other script. All of them get
--   KEYS[1]  the store: which server it was last used on and since when, its generation, how many publications it has
--            seen, and for how long a node is taken for alive (ms)
--   ARGV[1]  the run of the server that the node believes to talk to
--   ARGV[2]  a name of the node that no other has or had
-- Scripts about a channel get its keys (see `channel.lua`) behind it.

-- Microseconds since the Unix epoch, on the one clock that all nodes share.
local function microseconds()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- A number as text: all its digits, and no exponent.
local function digits(number)
  return string.format('%.0f', number)
end

-- A name that no epoch and no generation had before; clients see it, so it says nothing about the node.
local function unique()
  return string.sub(redis.sha1hex(ARGV[2] .. digits(microseconds())), 1, 16)
end

local store = redis.call('HMGET', KEYS[1], 'run', 'generation', 'count', 'lease', 'since')

-- The server has been started anew, is another one, or was emptied: first it is found out what was lost (adopt.lua).
if ADOPTED and store[1] ~= ARGV[1] then
  return redis.error_reply('STALE the store has not been looked at since the server changed')
end
