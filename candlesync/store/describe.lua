-- What some nodes say of themselves, in their order, each after its version; nothing of those that are gone.
--
-- KEYS  1 the version of what each says of itself (hash)  2 what each says of itself (hash)    ARGV  the nodes

local versions, said = redis.call('HMGET', KEYS[1], unpack(ARGV)), redis.call('HMGET', KEYS[2], unpack(ARGV))
local answer = {}
for index = 1, #ARGV do
    answer[2 * index - 1] = versions[index]
    answer[2 * index] = said[index]
end
return answer
