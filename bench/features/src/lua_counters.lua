-- Adds a payment to the counters of one entity and sums its windows.
-- KEYS[1]: the entity's hash. ARGV: time in seconds, payments to add (0: read only), amount to add, life of the key in seconds.
-- A window is a ring of buckets; each field holds {number of the bucket, payments, amount} in 16 bytes, so a bucket that is overwritten needs no deletion.
local now, add, amount = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local stored = redis.call('HMGET', KEYS[1],
    'a0', 'a1', 'a2', 'a3', 'a4',
    'b0', 'b1', 'b2', 'b3', 'b4', 'b5',
    'c0', 'c1', 'c2', 'c3', 'c4', 'c5',
    'd0', 'd1', 'd2', 'd3', 'd4', 'd5', 'd6', 'd7', 'd8', 'd9', 'd10', 'd11')
local unpack_bucket, floor = struct.unpack, math.floor
local names = {'a', 'b', 'c', 'd'}
local width_s = {1, 10, 600, 7200}
local ring = {5, 6, 6, 12}
local before, answer, changed = 0, {}, {}
for w = 1, 4 do
    local current, slots = floor(now / width_s[w]), ring[w]
    local oldest, payments, sum = current - slots, add, amount
    local place = current % slots
    local own_payments, own_sum = add, amount
    for slot = 1, slots do
        local value = stored[before + slot]
        if value then
            local bucket, count, total = unpack_bucket('<I4I4d', value)
            if bucket > oldest and bucket <= current then
                payments, sum = payments + count, sum + total
                if bucket == current then
                    own_payments, own_sum = own_payments + count, own_sum + total
                end
            end
        end
    end
    changed[2 * w - 1] = names[w] .. place
    changed[2 * w] = struct.pack('<I4I4d', current, own_payments, own_sum)
    answer[2 * w - 1], answer[2 * w] = payments, sum
    before = before + slots
end
if add > 0 then
    redis.call('HSET', KEYS[1], unpack(changed))
    redis.call('EXPIRE', KEYS[1], ARGV[4])
end
return answer
