-- A new fencing token of a symbol.
--
-- KEYS  1 the symbol's fence (hash), which is never deleted    ARGV  1 ten random digits
--
-- The count makes it another one than ever before; the digits do so where the count was lost (a wiped server).

local count = redis.call('HINCRBY', KEYS[1], 'claims', 1)
local token = string.format('%.0f', count) .. ARGV[1]
redis.call('HSET', KEYS[1], 'token', token)
return token
