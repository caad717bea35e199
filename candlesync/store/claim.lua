-- A symbol's lease, with a new fencing token.
--
-- KEYS  1 the symbol's fence (hash), which is never deleted  2 its lease (string: the node that holds it)
-- ARGV  1 ten random digits  2 this node  3 the lease's length in milliseconds
-- Gives {"ok", the token}, or {"leased", the node that holds it, milliseconds until it ends}.
--
-- The count makes it another token than ever before; the digits do so where the count was lost (a wiped server).

local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[2] then
    local left = redis.call('PTTL', KEYS[2])
    -- One without an end is not ours, and nobody would ever renew or release it.
    if left > 0 then
        return {'leased', holder, left}
    end
end
local count = redis.call('HINCRBY', KEYS[1], 'claims', 1)
local token = string.format('%.0f', count) .. ARGV[1]
redis.call('HSET', KEYS[1], 'token', token)
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return {'ok', token}
