-- Number a publication, append it, and tell all nodes that listen; or find that it was accepted before.
--   ARGV[5]  how many publications the log keeps
--   ARGV[6]  milliseconds for which an id is known;  ARGV[7]  how many ids are
--   ARGV[8]  <from>\0<id>, or nothing
--   ARGV[9]  1 where a receipt is wanted
--   ARGV[10] the word for telling, and ARGV[11]  the bus to tell on
--   ARGV[12] what the node calls this submission, where it listens;  ARGV[13]  the origin;  ARGV[14]  the record
-- Returns epoch, seq, 1 for a duplicate, and how many publications the store has seen.
local head = open_head()
local id = ARGV[8]

local function tell(kind, seq, count, body)
  local fields = { kind, head.epoch, digits(seq), count, ARGV[12], ARGV[13] }
  redis.call(ARGV[10], ARGV[11], table.concat(fields, ' ') .. '\n' .. body)
end

if id ~= '' then
  local window = tonumber(ARGV[6])
  local known = known_as(id, window)
  if known then
    if ARGV[12] ~= '' then
      -- The answer comes the way that all answers to a node that listens come, so that it is in order.
      tell('d', known, store[3] or '0', '')
    end
    keep_head()
    return { head.epoch, known, 1, tonumber(store[3] or '0') }
  end
  if head.began + window <= milliseconds or redis.call('HLEN', KEYS[4]) >= tonumber(ARGV[7]) then
    head.began = milliseconds
    redis.call('HSET', KEYS[2], 'began', digits(milliseconds))
    redis.call('UNLINK', KEYS[5])
    if redis.call('EXISTS', KEYS[4]) == 1 then
      redis.call('RENAME', KEYS[4], KEYS[5])
    end
  end
end

local seq = head.seq + 1
-- The clock of the server may be set back; the log's does not go back.
local time = math.max(milliseconds, head.time)
local place = digits(seq) .. '-' .. digits(time)
if ARGV[13] == '' then
  redis.call('XADD', KEYS[3], 'MAXLEN', '=', ARGV[5], place, 'r', ARGV[14])
else
  redis.call('XADD', KEYS[3], 'MAXLEN', '=', ARGV[5], place, 'r', ARGV[14], 'o', ARGV[13])
end
redis.call('PEXPIRE', KEYS[3], ARGV[4])
keep_head()
redis.call('HSET', KEYS[2], 'seq', digits(seq), 'time', digits(time))
if id ~= '' then
  redis.call('HSET', KEYS[4], id, digits(seq) .. ' ' .. digits(milliseconds))
  if head.began == milliseconds then
    -- Noted for one window, and then kept for another.
    redis.call('PEXPIRE', KEYS[4], 2 * tonumber(ARGV[6]))
  end
end
if ARGV[9] == '1' then
  redis.call('ZADD', KEYS[6], digits(seq), digits(seq))
  redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', digits(seq - tonumber(ARGV[5])))
  redis.call('PEXPIRE', KEYS[6], ARGV[4])
end
if seq % 100 == 0 then
  drop_old(head)
end
local count = redis.call('HINCRBY', KEYS[1], 'count', 1)
tell('m', seq, digits(count), ARGV[14])
return { head.epoch, seq, 0, count }
