-- One commit of one series: checked and made on the server, where nothing can come in between.
--
-- It refuses what `Replica.apply` refuses, in the same order (candlesync/core/replica.py). All that can fail is done
-- before the first write: an error in a script does not undo what the script has written.
--
-- KEYS  1 the symbol's fence (hash)  2 the series' meta (hash)  3 the series' candles (list, one value each, by time)
-- ARGV  1 fencing token  2 history length
--       3 the terms      {life, revision, begins, replaces, id, whether the first open time may begin a series,
--                         {the open time just before each}, {the ordinal of each}}
--       4 channel        5 what to announce there        6 … the values
-- Gives {"ok", why it could not be announced or ""}, or {the refusal, its reason}.
--
-- The calendar is Python's: an ordinal counts the series' open times from a fixed one, so that months are as even as
-- minutes. A value begins {tag, revision, open time, flags, …}; the first flag is `closed`.

local FORMAT = '1'

local function read(value)
    local fields = cmsgpack.unpack(value)
    return {revision = fields[2], time = fields[3], closed = fields[4] % 2 == 1}
end

local function text(number)
    return string.format('%.0f', number)
end

if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
    return {'fenced', ''}
end

-- What is held. A series whose parts do not fit together (one key evicted, a writer who was not us) is not there.
local meta = redis.call('HMGET', KEYS[2], 'format', 'life', 'revision', 'trimmed', 'first', 'ordinal', 'length')
local length = redis.call('LLEN', KEYS[3])
if meta[1] and meta[1] ~= FORMAT then
    return {'format', meta[1]}
end
local life, revision, trimmed, first, tail = '', 0, 0, nil, nil
if meta[1] and length > 0 and tonumber(meta[7]) == length then
    life, revision, trimmed, first = meta[2], tonumber(meta[3]), tonumber(meta[4]), meta[5]
    tail = read(redis.call('LINDEX', KEYS[3], -1))
    tail.ordinal = tonumber(meta[6])
end

local terms = cmsgpack.unpack(ARGV[3])
local new_life, new_revision, begins, replaces, id = terms[1], terms[2], terms[3], terms[4], terms[5]
local may_begin, predecessors, ordinals = terms[6], terms[7], terms[8]

-- Compare-and-set.
if #ARGV < 6 then
    return {'broken', 'a commit without candles'}
end
local begins_life = begins and new_life ~= life
local fits
if begins_life then
    fits = replaces == life and new_revision == 1
else
    fits = new_life == life and new_revision - 1 == revision
end
if new_life == '' or not fits then
    return {'conflict', life .. '-' .. text(revision)}
end

-- Invariants 1 and 3.
if begins then
    tail = nil
end
local changed, appended = {}, {}
local previous
for index = 1, #ARGV - 5 do
    local value = ARGV[index + 5]
    local candle = read(value)
    candle.ordinal = ordinals[index]
    if previous and candle.time <= previous.time then
        return {'broken', text(candle.time) .. ' does not ascend from ' .. text(previous.time)}
    end
    local before = previous
    if not previous or (tail and previous.time < tail.time) then
        before = tail
    end
    if not before then
        if not may_begin then
            return {'broken', text(candle.time) .. ' is not an open time'}
        end
        appended[1] = value
    elseif candle.time > before.time then
        if predecessors[index] ~= before.time then
            return {'broken', text(candle.time) .. ' does not follow ' .. text(before.time)}
        end
        if not before.closed then
            return {'broken', text(candle.time) .. ' follows a forming candle'}
        end
        appended[#appended + 1] = value
    else
        -- Not after the tail: it can only be a candle that is held, counted from the end.
        local at = candle.ordinal - tail.ordinal - 1
        local held = at >= -length and redis.call('LINDEX', KEYS[3], at)
        local known = held and read(held)
        if not known or known.time ~= candle.time then
            return {'broken', text(candle.time) .. ' is not in the history'}
        end
        if known.closed and not candle.closed then
            return {'broken', text(candle.time) .. ' is closed and cannot be forming again'}
        end
        changed[#changed + 1] = {at, value}
    end
    previous = candle
end

-- From here on it happens. The first write needs memory, so that a server without any refuses here: later it does not.
-- The length is wrong until the end: should the server refuse a write in the middle (a user who may not, a command that
-- it does not have), no half of a commit is ever taken for a series.
redis.call('HSET', KEYS[2], 'length', '-1')
if begins then
    redis.call('DEL', KEYS[3])
    length, trimmed = 0, new_revision
end
for _, put in ipairs(changed) do
    redis.call('LSET', KEYS[3], put[1], put[2])
end
for from = 1, #appended, 1000 do
    length = redis.call('RPUSH', KEYS[3], unpack(appended, from, math.min(from + 999, #appended)))
end
local excess = length - tonumber(ARGV[2])
if excess > 0 then
    for _, value in ipairs(redis.call('LRANGE', KEYS[3], 0, excess - 1)) do
        trimmed = math.max(trimmed, read(value).revision)
    end
    redis.call('LTRIM', KEYS[3], excess, -1)
    length = length - excess
end
if excess > 0 or begins then
    first = text(read(redis.call('LINDEX', KEYS[3], 0)).time)
end
-- What ends before the tail leaves the tail as it was.
if tail and previous.time < tail.time then
    previous = tail
end
redis.call(
    'HSET', KEYS[2],
    'format', FORMAT, 'life', new_life, 'revision', text(new_revision), 'trimmed', text(trimmed),
    'first', first, 'last', text(previous.time), 'ordinal', text(previous.ordinal), 'length', text(length),
    'token', ARGV[1], 'commit', id
)
-- The commit stands: that nobody could be told of it must not look like a failure of it.
local told = redis.pcall('PUBLISH', ARGV[4], ARGV[5])
return {'ok', type(told) == 'table' and told.err or ''}
