-- Whether a fencing token is the symbol's current one (1) or not (0).
--
-- KEYS  1 the symbol's fence (hash)    ARGV  1 fencing token

return redis.call('HGET', KEYS[1], 'token') == ARGV[1] and 1 or 0
