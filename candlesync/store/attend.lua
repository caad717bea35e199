-- This node is there, and who else is.
--
-- KEYS  1 until when each node is there (sorted set, by this server's clock in milliseconds)
--       2 the version of what each says of itself (hash)  3 what each says of itself (hash)
-- ARGV  1 this node  2 the lease's length in milliseconds  3 the version of  4 what it says of itself
--       5 channel  6 what to announce there when it has come, or says something new
-- Gives {why it could not be announced or "", {node, version, …}}.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Those that are gone. This needs no memory, so a server without any does it; and whoever has written may write on.
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for _, node in ipairs(gone) do
    redis.call('HDEL', KEYS[2], node)
    redis.call('HDEL', KEYS[3], node)
end

local is_new = redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1]) == 1
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[3] or redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then
    redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[4])
    is_new = true
end
local told = is_new and redis.pcall('PUBLISH', ARGV[5], ARGV[6])

local nodes = {}
for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    local version = redis.call('HGET', KEYS[2], node)
    if version then
        nodes[#nodes + 1] = node
        nodes[#nodes + 1] = version
    end
end
return {type(told) == 'table' and told.err or '', nodes}
