-- Take over departed streams, one of each key: as `Departures.take` does (candlesync/doors/binance/departures.py).
--
-- KEYS  1 until when each node's streams count as present (sorted set, by this server's clock in milliseconds)
--       2 … where departed streams of each key stopped; then where the present streams of each other node are
--       (both as in departures_keep.lua)
-- ARGV  1 how many keys  2 when this was asked first, 0: now  3 milliseconds that all is kept
--       4 milliseconds within which streams leave together  5 milliseconds for which a node counts as there
--       6 milliseconds in which a node notices a departure  7 … the keys; then the other nodes
-- Gives {when it was asked first, place or "", 1 if it is doubtful or 0, …}.
--
-- The streams of a node that is not there any more departed when it ended, all together. What is not of our form is
-- nobody's departure.

local count = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local asked = tonumber(ARGV[2])
if asked == 0 then
    asked = now
end
local kept, together, alive, noticed = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local function text(number)
    return string.format('%.0f', number)
end

local function number(digits)
    return digits and #digits <= 15 and tonumber(digits) or nil
end

local nodes = {}
for index = 1, #KEYS - 1 - count do
    local score = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[6 + count + index]) or nil)
    if score and score > now - kept then
        nodes[#nodes + 1] = {key = KEYS[1 + count + index], ends = score}
    end
end

-- {at, place, count, list and index in it, or hash}
local function departures(list, key)
    local found, is_doubtful = {}, false
    local values = redis.call('LRANGE', list, -64, -1)
    for index, value in ipairs(values) do
        local at, place, held = string.match(value, '^(%d+) (%d+) (%d+)$')
        at, place, held = number(at), number(place), number(held)
        if at and place and held and held > 0 and math.abs(now - at) < kept then
            found[#found + 1] = {at = at, place = place, count = held, list = list, index = index - #values - 1}
        end
    end
    for _, node in ipairs(nodes) do
        local value = redis.call('HGET', node.key, key)
        local place, held = string.match(value or '', '^(%d+) (%d+)$')
        place, held = number(place), number(held)
        if place and held and held > 0 then
            if node.ends <= now then
                found[#found + 1] = {at = node.ends, place = place, count = held, hash = node.key}
            elseif node.ends - alive < asked + noticed then
                is_doubtful = true
            end
        end
    end
    return found, is_doubtful
end

local function remove_one(from, key)
    local left = from.count - 1
    if from.hash then
        if left > 0 then
            redis.call('HSET', from.hash, key, text(from.place) .. ' ' .. text(left))
        else
            redis.call('HDEL', from.hash, key)
        end
    elseif left > 0 then
        redis.call('LSET', from.list, from.index, text(from.at) .. ' ' .. text(from.place) .. ' ' .. text(left))
    else
        redis.call('LSET', from.list, from.index, '')
        redis.call('LREM', from.list, 1, '')
    end
end

local answer = {text(asked)}
for index = 1, count do
    local key = ARGV[6 + index]
    local found, is_doubtful = departures(KEYS[1 + index], key)
    local latest = 0
    for _, departure in ipairs(found) do
        latest = math.max(latest, departure.at)
    end
    local first, last
    for _, departure in ipairs(found) do
        if departure.at >= latest - together then
            if not first or departure.place < first.place then
                first = departure
            end
            if not last or departure.place > last.place then
                last = departure
            end
        end
    end
    if first then
        remove_one(last, key)
        answer[#answer + 1] = text(first.place)
        answer[#answer + 1] = 0
    else
        answer[#answer + 1] = ''
        answer[#answer + 1] = is_doubtful and 1 or 0
    end
end
return answer
