-- A whole series at one revision, or where it is.
--
-- KEYS  1 the series' meta (hash)  2 the series' candles (list)
-- ARGV  1 'candles' or 'position'
-- Gives {format, life, revision, trimmed, {value, …}} or {format, life, revision}; nothing when there is no series, or
-- no whole one.

local meta = redis.call('HMGET', KEYS[1], 'format', 'life', 'revision', 'trimmed', 'length')
if not meta[1] then
    return false
end
if meta[1] ~= '1' then
    return {meta[1]}
end
if redis.call('LLEN', KEYS[2]) ~= tonumber(meta[5]) then
    return false
end
if ARGV[1] == 'position' then
    return {meta[1], meta[2], meta[3]}
end
return {meta[1], meta[2], meta[3], meta[4], redis.call('LRANGE', KEYS[2], 0, -1)}
