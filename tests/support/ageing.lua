-- Everything of one test becomes older, as if so much time had passed: its times, and what is left of them.
--   ARGV[1]  what its keys begin with;  ARGV[2]  milliseconds
local by = tonumber(ARGV[2])
local function digits(number)
  return string.format('%.0f', number)
end
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local left = redis.call('PTTL', key)
  if left >= 0 and left <= by then
    redis.call('DEL', key)
  else
    local kind = string.match(key, ':([%a-]+)$')
    if kind == 'head' then
      for _, field in ipairs({ 'time', 'began' }) do
        local time = redis.call('HGET', key, field)
        if time then
          redis.call('HSET', key, field, digits(tonumber(time) - by))
        end
      end
    elseif kind == 'log' then
      local entries = redis.call('XRANGE', key, '-', '+')
      redis.call('DEL', key)
      for _, entry in ipairs(entries) do
        local seq, time = string.match(entry[1], '^(%d+)%-(%d+)$')
        redis.call('XADD', key, seq .. '-' .. digits(tonumber(time) - by), unpack(entry[2]))
      end
    elseif kind == 'ids' or kind == 'ids-before' then
      for _, id in ipairs(redis.call('HKEYS', key)) do
        local seq, time = string.match(redis.call('HGET', key, id), '^(%d+) (%d+)$')
        redis.call('HSET', key, id, seq .. ' ' .. digits(tonumber(time) - by))
      end
    end
    if left >= 0 then
      redis.call('PEXPIRE', key, left - by)
    end
  end
end
