-- An end to a symbol's lease and to its token, announced.
--
-- KEYS  1 the symbol's fence (hash)  2 its lease (string)
-- ARGV  1 fencing token  2 channel  3 what to announce there
-- Gives {"ok", why it could not be announced or ""}, or {"fenced", ""}.

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
    return {'fenced', ''}
end
redis.call('HDEL', KEYS[1], 'token')
redis.call('DEL', KEYS[2])
local told = redis.pcall('PUBLISH', ARGV[2], ARGV[3])
return {'ok', type(told) == 'table' and told.err or ''}
