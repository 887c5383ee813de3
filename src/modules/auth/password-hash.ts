import { passwordBytesMax } from '../../lib/credentials.ts'
import { createQueue, type Waiter } from './queue.ts'

export type Passwords = ReturnType<typeof createPasswords>

interface PasswordSettings {
  /** The cost of bcrypt: each step doubles the time. */
  cost: number
  /** How many passwords are hashed or verified at the same time. */
  atOnce: number
  /** How many more may wait. */
  waiting: number
}

/**
 * Hashes and verifies passwords with bcrypt. A hash keeps a core busy for a fifth of a second, so only `atOnce` run at
 * a time and `waiting` more may queue, of one address half as many; beyond that the answer is 503, and other requests are
 * not delayed. Addresses take turns, and clients that hung up keep no place.
 */
export function createPasswords({ cost, atOnce, waiting }: PasswordSettings) {
  const inTurn = createQueue(atOnce, waiting)

  return {
    /** Returns a bcrypt hash (`$2b$…`). Throws 503 when the queue is full. */
    hash: (password: string, client?: Waiter) =>
      inTurn(() => Bun.password.hash(password, { algorithm: 'bcrypt', cost }), client),

    /**
     * Whether `password` has this `hash`. A wrong one takes as long as one hash of the configured cost, also without a
     * hash (unknown address), with a hash of lower cost, and for a password that is empty or too long for bcrypt.
     */
    async verify(password: string, hash: string | undefined, client?: Waiter): Promise<boolean> {
      const bytes = Buffer.byteLength(password)
      const isUsable = bytes > 0 && bytes <= passwordBytesMax
      const text = isUsable ? password : 'x'
      return inTurn(async () => {
        const matches = hash === undefined ? undefined : await matchesHash(text, hash)
        if (matches && isUsable) return true
        if (matches === undefined) await spend(text, cost)
        // 2^c + 2^c + 2^(c+1) + … + 2^(cost-1) = 2^cost.
        else for (let spent = costOf(hash)!; spent < cost; spent++) await spend(text, spent)
        return false
      }, client)
    },

    /** Whether a hash has another cost than the configured one, and should be replaced at the next sign-in. */
    isOutdated: (hash: string): boolean => costOf(hash) !== cost,

    /** How many passwords are being hashed or verified, and how many wait. */
    stats: inTurn.stats,
  }
}

/** `undefined`, at once, for a hash that is damaged or not of bcrypt. */
const matchesHash = (password: string, hash: string): Promise<boolean | undefined> =>
  Bun.password.verify(password, hash, 'bcrypt').catch(() => undefined)

/** Takes as long as to verify a hash of this cost. No known password has this hash. */
const spend = (password: string, cost: number) =>
  matchesHash(password, `$2b$${String(cost).padStart(2, '0')}$${'.'.repeat(53)}`)

const costOf = (hash = ''): number | undefined => {
  const [, cost] = /^\$2[abxy]\$(\d\d)\$/.exec(hash) ?? []
  return cost === undefined ? undefined : Number(cost)
}
