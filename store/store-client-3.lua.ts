/**
 * Writes one client into the registry, obeying its signature (Sensu 1.9: keepalive processing).
 *
 * KEYS: 1 clients, 2 client:C, 3 client:C:signature
 * ARGV: 1 client name, 2 client JSON, 3 the client's signature or ''
 * Returns {accepted 0|1, registered 0|1, stored signature}. `registered` is 1 once per lifetime of the signature key.
 *
 * The scripts are TypeScript files holding text, not .lua files, so that tsc, the one-to-one build, the bundle and the tests need
 * no loader, no copying and no path to find them at run time. The number in the file name is the number of KEYS.
 */
export const storeClientScript = `
local registered = redis.call('SETNX', KEYS[3], ARGV[3])
local signature = redis.call('GET', KEYS[3])
if signature == '' and ARGV[3] ~= '' then
  redis.call('SET', KEYS[3], ARGV[3])
  signature = ARGV[3]
end
if signature ~= '' and signature ~= ARGV[3] then
  return {0, registered, signature}
end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('SADD', KEYS[1], ARGV[1])
return {1, registered, signature}
`
