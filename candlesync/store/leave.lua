-- This node is not there any more; announced if it was.
--
-- KEYS  as of attend.lua    ARGV  1 this node  2 channel  3 what to announce there
-- Gives why it could not be announced, or "".

local told = redis.call('ZREM', KEYS[1], ARGV[1]) == 1 and redis.pcall('PUBLISH', ARGV[2], ARGV[3])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
return type(told) == 'table' and told.err or ''
