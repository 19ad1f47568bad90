import type { Redis } from 'ioredis'
import type { JsonObject } from '../sensu/types.js'
import { forgetMissing } from './forget-missing.js'
import { aggregateKey, aggregatesKey, type checkMember, resultPrefix } from './keys.js'
import { readAhead, slicesOf } from './listing.js'
import { parsedObject } from './stored-text.js'

/** A check of a client that belongs to an aggregate. */
export interface AggregateMember {
  client: string
  check: string
}

/** Named groups of checks. Everything rejects while Redis is away. */
export class Aggregates {
  readonly #redis: () => Redis

  constructor(redis: () => Redis) {
    this.#redis = redis
  }

  names(): Promise<string[]> {
    return this.#redis().smembers(aggregatesKey)
  }

  /** Empty for an aggregate that is not there. */
  async members(name: string): Promise<AggregateMember[]> {
    return (await this.#redis().smembers(aggregateKey(name))).map(memberParts)
  }

  /** The members' stored results, in slices. Members without one are forgotten on the way. */
  async *results(name: string): AsyncGenerator<(AggregateMember & { result: JsonObject })[]> {
    const redis = this.#redis()
    yield* readAhead(slicesOf(await redis.smembers(aggregateKey(name))), async slice => {
      const texts = await redis.mget(slice.map(member => `${resultPrefix}${member}`))
      const missing = slice.filter((_, index) => texts[index] === null)
      await forgetMissing(redis, aggregateKey(name), resultPrefix, missing)
      return slice.flatMap((member, index) => {
        const result = parsedObject(texts[index] ?? null)
        return result ? [{ ...memberParts(member), result }] : []
      })
    })
  }

  /** False when there is no such aggregate. */
  async remove(name: string): Promise<boolean> {
    const redis = this.#redis()
    const known = await redis.sismember(aggregatesKey, name)
    const hadMembers = await redis.exists(aggregateKey(name))
    await redis.multi().srem(aggregatesKey, name).del(aggregateKey(name)).exec()
    return known + hadMembers > 0
  }
}

/** The client is what stands before the first colon (see checkMember). */
function memberParts(member: ReturnType<typeof checkMember>): AggregateMember {
  const colon = member.indexOf(':')
  return colon < 0 ? { client: member, check: '' } : { client: member.slice(0, colon), check: member.slice(colon + 1) }
}
