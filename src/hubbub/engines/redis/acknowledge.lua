-- Move the cursor of an inbox, and find what that passes of those that want a receipt.
--   ARGV[5]  the seq;  ARGV[6]  a name of this call, the same when it is made again because its answer was lost
-- Returns nothing where the inbox does not reach so far; else `moved` and the records, the oldest first.
local seq = tonumber(ARGV[5])
local head = open_head()
keep_head()
if seq > head.seq then
  return {}
end
local passed
local given = redis.call('HMGET', KEYS[2], 'call', 'from', 'to')
if given[1] == ARGV[6] then
  passed = { tonumber(given[2]), tonumber(given[3]) }
elseif seq <= head.cursor then
  return { 'moved' }
else
  drop_old(head)
  passed = { head.cursor, seq }
  redis.call('HSET', KEYS[2], 'cursor', digits(seq), 'call', ARGV[6], 'from', digits(head.cursor), 'to', digits(seq))
end
local found = { 'moved' }
for _, due in ipairs(redis.call('ZRANGEBYSCORE', KEYS[6], '(' .. digits(passed[1]), digits(passed[2]))) do
  local entries = redis.call('XRANGE', KEYS[3], due .. '-0', due .. '-' .. LAST)
  if #entries > 0 then
    found[#found + 1] = digits(seq_of(entries[1]))
    found[#found + 1] = entries[1][2][2]
  end
end
-- What an earlier call has passed: nobody asks for it again.
redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', digits(passed[1]))
return found
