-- A symbol's lease for its full length from now, and its owner's report announced.
--
-- KEYS  1 the symbol's fence (hash)  2 its lease (string)
-- ARGV  1 fencing token  2 this node  3 the lease's length in milliseconds  4 channel  5 what to announce there
-- Gives {"ok", why it could not be announced or ""}, or {"fenced", ""}.

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
    return {'fenced', ''}
end
-- This needs no memory, so a server without any does it; and whoever has written may write on.
if redis.call('PEXPIRE', KEYS[2], ARGV[3]) == 0 then
    redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
end
local told = redis.pcall('PUBLISH', ARGV[4], ARGV[5])
return {'ok', type(told) == 'table' and told.err or ''}
