-- Where the streams of this node are, and where some stopped; and that this node is there.
--
-- KEYS  1 until when each node's streams count as present (sorted set, by this server's clock in milliseconds)
--       2 where this node's present streams are (hash: "place count" by key)
--       3 … where departed streams of each key stopped (list of "time place count", the oldest first)
-- ARGV  1 this node  2 milliseconds for which it counts as there; 0: it ends now  3 milliseconds that all is kept
--       4 what has changed of the present streams {key, place, count, …}: a count of 0 is none any more
--       5 the departed ones {place, count, …}, as KEYS from 3 on
-- Gives {how many keys have present streams here, {node, …}}: the nodes that are there, or died lately.
--
-- A key is removed and its departure is added in one call, so nobody ever sees a stream in neither place.

local LONGEST = 64 -- departures of one key; each is of all that left within one call
local NODES = 64

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function text(number)
    return string.format('%.0f', number)
end

-- What needs memory comes first: a server without any refuses it before anything is done.
local departed = cmsgpack.unpack(ARGV[5])
for index = 3, #KEYS do
    local place, count = departed[2 * index - 5], departed[2 * index - 4]
    redis.call('RPUSH', KEYS[index], text(now) .. ' ' .. text(place) .. ' ' .. text(count))
    redis.call('LTRIM', KEYS[index], -LONGEST, -1)
    redis.call('PEXPIRE', KEYS[index], ARGV[3])
end
local rows = cmsgpack.unpack(ARGV[4])
local put, gone = {}, {}
for index = 1, #rows, 3 do
    if rows[index + 2] > 0 then
        put[#put + 1] = rows[index]
        put[#put + 1] = text(rows[index + 1]) .. ' ' .. text(rows[index + 2])
    else
        gone[#gone + 1] = rows[index]
    end
end
for from = 1, #put, 1000 do
    redis.call('HSET', KEYS[2], unpack(put, from, math.min(from + 999, #put)))
end
for from = 1, #gone, 1000 do
    redis.call('HDEL', KEYS[2], unpack(gone, from, math.min(from + 999, #gone)))
end

local length = redis.call('HLEN', KEYS[2])
if length > 0 then
    redis.call('PEXPIRE', KEYS[2], ARGV[2] + ARGV[3])
    redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
else
    redis.call('ZREM', KEYS[1], ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
return {length, redis.call('ZREVRANGE', KEYS[1], 0, NODES - 1)}
