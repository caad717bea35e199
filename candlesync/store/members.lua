-- Who is there, for somebody who is no node; changes nothing.
--
-- KEYS  1 until when each node is there (sorted set, by this server's clock in milliseconds)
--       2 what each says of itself (hash)
-- Gives {node, what it says, …}.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local nodes = {}
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), '+inf')) do
    local said = redis.call('HGET', KEYS[2], node)
    if said then
        nodes[#nodes + 1] = node
        nodes[#nodes + 1] = said
    end
end
return nodes
