import type { Redis } from 'ioredis'

/** KEYS: 1 set; ARGV: 1 what the members' keys begin with, then members. */
const forgetScript = `
for index = 2, #ARGV do
  if redis.call('EXISTS', ARGV[1] .. ARGV[index]) == 0 then redis.call('SREM', KEYS[1], ARGV[index]) end
end
`

/** Removes members from a set whose key `prefix` + member is gone. Redis looks once more: one that has come back meanwhile stays. */
export async function forgetMissing(redis: Redis, set: string, prefix: string, members: string[]): Promise<void> {
  if (members.length > 0) await redis.eval(forgetScript, 1, set, prefix, ...members)
}
