import { AppError } from '../../errors.ts'

/** bcrypt takes no more of a password than this many bytes of UTF-8. */
export const passwordBytesMax = 72

export type Passwords = ReturnType<typeof createPasswords>

/**
 * Hashes and checks passwords with bcrypt. A hash fills a core for a fifth of a second, so only `atOnce` run at a
 * time and `waiting` more may queue; beyond that, 503: the reads of everybody else go on.
 */
export function createPasswords({
  cost,
  atOnce,
  waiting,
}: {
  cost: number
  atOnce: number
  waiting: number
}) {
  const inTurn = createQueue(atOnce, waiting)
  // Well formed, of the same cost, and the hash of nothing that anybody knows.
  const nobodysHash = `$2b$${String(cost).padStart(2, '0')}$${'.'.repeat(53)}`

  return {
    /** A bcrypt hash (`$2b$…`). Throws 503 when too many wait. */
    hash: (password: string) => inTurn(() => Bun.password.hash(password, { algorithm: 'bcrypt', cost })),

    /**
     * Whether `password` is the one behind `hash`. Takes as long when there is no hash (nobody has this address),
     * and when the password is empty or longer than bcrypt can take.
     */
    async verify(password: string, hash: string | undefined): Promise<boolean> {
      const bytes = Buffer.byteLength(password)
      const usable = bytes > 0 && bytes <= passwordBytesMax
      const matches = await inTurn(() => matchesHash(usable ? password : 'x', hash ?? nobodysHash))
      return matches && usable && hash !== undefined
    },

    /** How many are being hashed or checked, and how many wait. */
    stats: inTurn.stats,
  }
}

/** A hash that is damaged or not bcrypt's matches nothing. */
const matchesHash = (password: string, hash: string) =>
  Bun.password.verify(password, hash, 'bcrypt').catch(() => false)

function createQueue(atOnce: number, waitingMax: number) {
  let running = 0
  const waiting: (() => void)[] = []

  const inTurn = async <T>(work: () => Promise<T>): Promise<T> => {
    if (running < atOnce) running++
    else if (waiting.length >= waitingMax) throw new AppError('unavailable')
    // Whoever finishes hands its place over, so `running` stays as it is.
    else await new Promise<void>(resolve => waiting.push(resolve))
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next) next()
      else running--
    }
  }
  return Object.assign(inTurn, { stats: () => ({ running, waiting: waiting.length }) })
}
