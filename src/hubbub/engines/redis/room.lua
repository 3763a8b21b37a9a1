-- Stands behind common.lua and nodes.lua in every script about who is in a room:
--   KEYS[3]  the room's users, a sorted set in the order of coming
--   KEYS[4]  the places, a hash: <user> to "<since> <sessions>", and <user>\0<session> to "<node> <since> <call>",
--           where <call> is the name of what brought the user in, or nothing where the user was in already
--   KEYS[5]  the nodes that have somebody in the room, a hash: how many sessions; under no name, how many users ever came
--   KEYS[6]  whom this very call has found gone, a list: it is asked for again where no answer came
--   ARGV[3]  the call's name: the same where it is asked for again
-- Each returns first whom it has found gone, for whoever called to tell.

-- Milliseconds for which it is known what became of a call.
local KNOWN = 300000

local function note(user, since, sessions)
  redis.call('HSET', KEYS[4], user, since .. ' ' .. digits(sessions))
end

local function place_of(user)
  local found = redis.call('HGET', KEYS[4], user)
  if found then
    local since, sessions = string.match(found, '^(%d+) (%d+)$')
    return since, tonumber(sessions)
  end
end

-- Count one session less of a node; the node goes with its last.
local function uncount(node)
  if redis.call('HINCRBY', KEYS[5], node, -1) <= 0 then
    redis.call('HDEL', KEYS[5], node)
  end
end

-- One session of the user less; whether that was the last.
local function take_out(user, session)
  local since, sessions = place_of(user)
  redis.call('HDEL', KEYS[4], user .. '\0' .. session)
  if sessions > 1 then
    note(user, since, sessions - 1)
    return false
  end
  redis.call('HDEL', KEYS[4], user)
  redis.call('ZREM', KEYS[3], user)
  if redis.call('ZCARD', KEYS[3]) == 0 then
    redis.call('DEL', KEYS[4], KEYS[5])
  end
  return true
end

-- The node, the time and the call in what is noted of a session.
local function session_of(noted)
  return string.match(noted, '^(%S+) (%d+) ?(%S*)$')
end

-- Take out whoever came by a node that is dead; returns the users who are gone by that. Whoever asks is not dead.
local function clear()
  local gone, dead, some = redis.call('LRANGE', KEYS[6], 0, -1), {}, false
  for _, node in ipairs(redis.call('HKEYS', KEYS[5])) do
    if node ~= '' and node ~= ARGV[2] and tonumber(redis.call('ZSCORE', KEYS[2], node) or '0') <= milliseconds then
      dead[node], some = true, true
    end
  end
  if some and renewing() then
    for node in pairs(dead) do
      -- First, since it is refused where there is no memory: then nothing has been done.
      redis.call('ZADD', KEYS[2], 'XX', 0, node)
      redis.call('HDEL', KEYS[5], node)
    end
    local places = redis.call('HGETALL', KEYS[4])
    for at = 1, #places, 2 do
      local user, session = string.match(places[at], '^(%Z+)%z(.*)$')
      if user and dead[(session_of(places[at + 1]))] and take_out(user, session) then
        gone[#gone + 1] = user
        redis.call('RPUSH', KEYS[6], user)
      end
    end
    redis.call('PEXPIRE', KEYS[6], KNOWN)
  end
  return gone
end
