#!lua name=fp
-- The guarded writer of the feature store. Entities' values change in two ways only: decision services append to them, and
-- this function puts a new head in the place of the bytes that the builder had read. What was appended in between stays.
--
-- Arguments: version; epoch of the builder's plan; number of folds that it has seen; number of log partitions; of each its
-- name, the position that it has seen ('' for none) and the new one; of all keys 4 bytes of length read and 4 of seconds to
-- live; the new head of each key.
-- Answers {'folded'}, or, with nothing changed, {'version', v}, {'superseded', epoch} or {'moved', position, ...}.
local VERSION = '1'

local function splice(key, expected, head, seconds)
  -- From the last byte that was read on: nothing there means a value made anew after the key had expired, which stays whole.
  local tail = redis.call('GETRANGE', key, math.max(expected - 1, 0), -1)
  if tail == '' then
    if expected > 0 then head = head .. redis.call('GETRANGE', key, 0, -1) end
  elseif expected == 0 then
    head = head .. tail
  elseif #tail > 1 then
    head = head .. string.sub(tail, 2)
  end
  if head ~= '' then redis.call('SET', key, head, 'EX', seconds) end
end

local function moved(args, partitions)
  local stored, differs = {'moved'}, (redis.call('GET', 'fp:folds') or '0') ~= args[3]
  for at = 5, 2 + 3 * partitions, 3 do
    local position = redis.call('HGET', 'fp:vector', args[at]) or ''
    stored[#stored + 1] = position
    differs = differs or position ~= args[at + 1]
  end
  return differs and stored
end

local function fold(keys, args)
  if args[1] ~= VERSION then return {'version', VERSION} end
  local epoch = redis.call('GET', 'fp:epoch')
  if epoch and tonumber(epoch) > tonumber(args[2]) then return {'superseded', epoch} end
  local partitions = tonumber(args[4])
  local stored = moved(args, partitions)
  if stored then return stored end
  local packed = 5 + 3 * partitions
  for index, key in ipairs(keys) do
    local expected, seconds = struct.unpack('>I4I4', args[packed], 8 * index - 7)
    splice(key, expected, args[packed + index], seconds)
  end
  for at = 5, packed - 1, 3 do redis.call('HSET', 'fp:vector', args[at], args[at + 2]) end
  redis.call('INCR', 'fp:folds')
  return {'folded'}
end

redis.register_function('fp_fold', fold)
redis.register_function{function_name = 'fp_version', callback = function() return VERSION end, flags = {'no-writes'}}
