// Each by its file: the package's index loads a limiter for every store there is, half a millisecond each at the start.
import RateLimiterMemory from 'rate-limiter-flexible/lib/RateLimiterMemory.js'
import RateLimiterPostgres from 'rate-limiter-flexible/lib/RateLimiterPostgres.js'
import RateLimiterRes from 'rate-limiter-flexible/lib/RateLimiterRes.js'
import type { Config } from '../../config/config.ts'
import type { Driver } from '../../db/driver.ts'
import { networkOf } from '../../lib/client-address.ts'
import { AppError } from '../../lib/errors.ts'
import { sha256 } from '../../lib/sha256.ts'
import { createQueue, type Waiter } from './queue.ts'

/** Response headers with the rest of a limit (draft-ietf-httpapi-ratelimit-headers-10). */
type LimitHeaders = Record<string, string>

export type Throttle = ReturnType<typeof createThrottle>

const accountSeconds = 15 * 60
const fallbackSeconds = 60
/** Attempts on one account that may wait for the one before; of one address half as many. */
const waitingMax = 200

/**
 * Limits the rate of calls and of password attempts. rate-limiter-flexible counts: calls of an address in this process,
 * failed attempts on an account in the database, shared by all replicas.
 *
 * An attacker cannot lock a user out. After too many failed attempts on an account, each address still has one attempt
 * a minute on it: the right password works at the first attempt from the user's address, and an attacker has one attempt
 * a minute for each address. Where the user is signed in, attempts do not wait for those from elsewhere. Another address
 * of the user may have to, as long as a flood from many addresses lasts.
 */
export function createThrottle(driver: Pick<Driver, 'query'>, settings: Config['throttle']) {
  const client = {
    query: async ({ text, values }: { text: string; values: unknown[] }) => ({
      rows: (await driver.query(text, values)).map(([points, expire]) => ({ points, expire })),
    }),
  }
  const shared = (keyPrefix: string, points: number, duration: number) =>
    new RateLimiterPostgres({
      storeClient: client,
      storeType: 'client',
      tableName: 'rate_limits',
      tableCreated: true,
      clearExpiredByTimeout: false,
      keyPrefix,
      points,
      duration,
    })

  const byAddress = {
    login: new RateLimiterMemory({ points: settings.loginsPerMinute, duration: 60 }),
    register: new RateLimiterMemory({ points: settings.registrationsPerHour, duration: 3600 }),
  }
  const failures = shared('account', settings.failuresPerAccount, accountSeconds)
  const perAddressFallback = shared('fallback', 1, fallbackSeconds)
  const refused = { login: 0, register: 0, account: 0 }
  const queues = new Map<string, ReturnType<typeof createQueue>>()

  /**
   * One attempt with the same key after the other: an attempt that waits does not count as failed, and keeps no password of
   * another account from being hashed.
   */
  async function inTurn<T>(key: string, attempt: () => Promise<T>, client: Waiter): Promise<T> {
    const queue = queues.getOrInsertComputed(key, () => createQueue(1, waitingMax))
    try {
      return await queue(attempt, client)
    } finally {
      if (queue.stats().running === 0) queues.delete(key)
    }
  }

  async function countAttempt<T>(account: string, address: string, check: () => Promise<T>): Promise<T> {
    const key = digest(account)
    const counted = await consume(failures, key)
    const fallbackKey = counted.refused ? `${key}:${digest(address)}` : undefined
    // An attempt that is refused, or could not be checked (too busy, the database away), does not count.
    let hasFailed = false
    try {
      const fallback = fallbackKey ? await consume(perAddressFallback, fallbackKey) : undefined
      if (fallback?.refused) {
        refused.account++
        throw tooMany(fallback)
      }
      const result = await check()
      hasFailed = !result
      return result
    } finally {
      if (!hasFailed) {
        await failures.reward(key)
        if (fallbackKey) await perAddressFallback.reward(fallbackKey)
      }
    }
  }

  return {
    /** Counts a call from an address. Throws `too_many_requests`. */
    async limitCalls(kind: keyof typeof byAddress, ip: string | null): Promise<LimitHeaders> {
      const limiter = byAddress[kind]
      if (limiter.points === 0) return {}
      const policy = `"${kind}";q=${limiter.points};w=${limiter.duration}`
      const result = await consume(limiter, networkOf(ip))
      const headers = {
        'ratelimit-policy': policy,
        ratelimit: `"${kind}";r=${result.remainingPoints};t=${seconds(result)}`,
      }
      if (result.refused) {
        refused[kind]++
        throw tooMany(result, headers)
      }
      return headers
    },

    /**
     * Runs a check of a credential for an account, after those before it. It counts as failed until it succeeds, so that of a
     * hundred attempts at many replicas not all pass before the first is counted. `addresses` reads those from which the
     * user is signed in. Returns what the check returns. Throws `too_many_requests`.
     */
    async limitAttempts<T>(
      { account, addresses }: { account: string; addresses: () => Promise<(string | null)[]> },
      client: Waiter,
      check: () => Promise<T>,
    ): Promise<T> {
      if (settings.failuresPerAccount === 0) return check()
      const address = networkOf(client.ip)
      const isKnown = (await addresses()).some(known => networkOf(known) === address)
      const key = isKnown ? `${account} ${address}` : account
      return inTurn(key, () => countAttempt(account, address, check), client)
    },

    /** The number of calls that each limit has refused since the start. */
    stats: (): Readonly<typeof refused> => refused,
  }
}

type Limiter = RateLimiterMemory | RateLimiterPostgres

/** The library throws its refusals; any other error is passed on. */
async function consume(limiter: Limiter, key: string): Promise<RateLimiterRes & { refused: boolean }> {
  try {
    return Object.assign(await limiter.consume(key), { refused: false })
  } catch (result) {
    if (result instanceof RateLimiterRes) return Object.assign(result, { refused: true })
    throw result
  }
}

const seconds = ({ msBeforeNext }: RateLimiterRes) => Math.max(1, Math.ceil(msBeforeNext / 1000))

const tooMany = (result: RateLimiterRes, headers: LimitHeaders = {}) =>
  new AppError('too_many_requests', { headers: { ...headers, 'retry-after': String(seconds(result)) } })

/** Keys are hashed: a counter does not reveal which accounts exist, and has a fixed length. */
const digest = (text: string) => sha256(text).slice(0, 32)
