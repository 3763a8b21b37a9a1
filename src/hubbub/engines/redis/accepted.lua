-- Under which place an id was accepted lately: epoch and seq, or nothing.
--   ARGV[5]  milliseconds for which an id is known;  ARGV[6]  <from>\0<id>
local known = known_as(ARGV[6], tonumber(ARGV[5]))
if known then
  local head = open_head()
  keep_head()
  return { head.epoch, known }
end
return {}
