-- A part of the log, and where it ends.
--   ARGV[5]  `position`, `after` or `before`;  ARGV[6]  the seq, -1 for none;  ARGV[7]  how many at most
-- Returns epoch, base, seq, the newest dropped seq, how many publications the store has seen, whether there is more,
-- and the publications, oldest first: seq, record and origin of each.
local head = open_head()
keep_head()
local dropped = drop_old(head)
local seq, limit = tonumber(ARGV[6]), tonumber(ARGV[7])
local entries, more = {}, 0
if ARGV[5] == 'after' and seq < head.seq then
  entries = redis.call('XRANGE', KEYS[3], digits(seq + 1) .. '-0', '+', 'COUNT', limit + 1)
elseif ARGV[5] == 'before' then
  local last = '+'
  if seq >= 0 then
    last = digits(math.max(seq, 1) - 1) .. '-' .. LAST
  end
  entries = redis.call('XREVRANGE', KEYS[3], last, '-', 'COUNT', limit + 1)
end
if #entries > limit then
  entries[#entries] = nil
  more = 1
end
local found = { head.epoch, head.base, head.seq, dropped, tonumber(store[3] or '0'), more }
local first, step, to = 1, 1, #entries
if ARGV[5] == 'before' then
  first, step, to = #entries, -1, 1
end
for place = first, to, step do
  local fields = entries[place][2]
  found[#found + 1] = seq_of(entries[place])
  found[#found + 1] = fields[2]
  found[#found + 1] = fields[4] or ''
end
return found
