-- Stands behind common.lua in every script about a channel:
--   KEYS[2]  the head, a hash: epoch, base (where the epoch began; -1: empty), seq, time (ms, of the newest), cursor, and
--            began (ms, since when ids are noted in KEYS[4])
--   KEYS[3]  the log, a stream: <seq>-<ms> is the id of a publication, so it is found by the one, and drops by the other
--   KEYS[4]  ids known lately, a hash: <from>\0<id> to "<seq> <ms>";  KEYS[5]  the same of the time before that
--   KEYS[6]  seqs that want a receipt and were not passed by the cursor, a sorted set
--   ARGV[3]  milliseconds for which the head is kept when nobody touches it
--   ARGV[4]  milliseconds for which the log keeps a publication
local LAST = '18446744073709551615'

local milliseconds = math.floor(microseconds() / 1000)

local function seq_of(entry)
  return tonumber(string.match(entry[1], '^(%d+)%-'))
end

-- The last seq of the log, which ends at `seq`, that is older than this run of the server.
local function before_this_run(seq)
  local since = tonumber(redis.call('HGET', KEYS[1], 'since'))
  while true do
    local entries = redis.call('XREVRANGE', KEYS[3], digits(seq) .. '-' .. LAST, '-', 'COUNT', 100)
    if #entries == 0 then
      return seq
    end
    for _, entry in ipairs(entries) do
      seq = seq_of(entry)
      if tonumber(string.match(entry[1], '%-(%d+)$')) < since then
        return seq
      end
      seq = seq - 1
    end
  end
end

-- Where Redis has no memory left it refuses the first write of a script that takes some; behind any other write it lets
-- all of them pass. So a script begins with one that takes memory.

-- The head, made where there was none. Where the store has lost something, each channel goes on in another epoch, with
-- the numbers that it had: what is there can still be read, and no position is mistaken for one in what was lost.
local function open_head()
  local found = redis.call('HMGET', KEYS[2], 'epoch', 'generation', 'base', 'seq', 'time', 'cursor', 'began')
  local head = {
    epoch = found[1],
    base = tonumber(found[3] or '0'),
    seq = tonumber(found[4] or '0'),
    time = tonumber(found[5] or '0'),
    cursor = tonumber(found[6] or '0'),
    began = tonumber(found[7] or '0'),
  }
  if not head.epoch or found[2] ~= store[2] then
    local anew = not head.epoch
    head.base = anew and -1 or before_this_run(head.seq)
    head.epoch = unique()
    redis.call('HSET', KEYS[2], 'epoch', head.epoch, 'generation', store[2], 'base', digits(head.base))
    if anew then
      redis.call('UNLINK', KEYS[3], KEYS[4], KEYS[5], KEYS[6])
    end
  end
  return head
end

-- The head has been touched.
local function keep_head()
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end

-- Drop what is too old; returns the seq of the newest that has ever been dropped.
local function drop_old(head)
  local oldest = milliseconds - tonumber(ARGV[4])
  local many = 1
  while true do
    local entries = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', many)
    local kept
    for _, entry in ipairs(entries) do
      if tonumber(string.match(entry[1], '%-(%d+)$')) > oldest then
        kept = entry
        break
      end
    end
    local dropped = #entries > 0 and seq_of(entries[#entries]) or head.seq
    if kept then
      dropped = seq_of(kept) - 1
    end
    if #entries > 0 and kept ~= entries[1] then
      redis.call('XTRIM', KEYS[3], 'MINID', digits(dropped + 1) .. '-0')
      redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', digits(dropped))
    end
    if kept or #entries == 0 then
      return dropped
    end
    many = 100
  end
end

-- The seq under which the id was accepted within `window` milliseconds, or nil.
local function known_as(id, window)
  local found = redis.call('HGET', KEYS[4], id) or redis.call('HGET', KEYS[5], id)
  if found then
    local seq, time = string.match(found, '^(%d+) (%d+)$')
    if tonumber(time) + window > milliseconds then
      return tonumber(seq)
    end
  end
end
