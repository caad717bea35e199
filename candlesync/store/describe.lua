-- What some nodes say of themselves, in their order; nothing of those that are gone.
--
-- KEYS  1 what each says of itself (hash)    ARGV  the nodes

return redis.call('HMGET', KEYS[1], unpack(ARGV))
