-- Where a series is.
--
-- KEYS  1 the series' meta (hash)  2 the series' candles (list)
-- Gives {format, life, revision}, or nothing when there is no series, or no whole one.

local meta = redis.call('HMGET', KEYS[1], 'format', 'life', 'revision', 'length')
if not meta[1] then
    return false
end
if meta[1] ~= '1' then
    return {meta[1]}
end
if redis.call('LLEN', KEYS[2]) ~= tonumber(meta[4]) then
    return false
end
return {meta[1], meta[2], meta[3]}
