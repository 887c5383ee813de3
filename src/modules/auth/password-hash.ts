import { AppError } from '../../lib/errors.ts'

/** bcrypt takes no more of a password than this many bytes of UTF-8. */
export const passwordBytesMax = 72

export type Passwords = ReturnType<typeof createPasswords>

interface PasswordSettings {
  /** bcrypt's: each step doubles the time. */
  cost: number
  /** How many are hashed or checked at a time. */
  atOnce: number
  /** How many more may queue. */
  waiting: number
}

/**
 * Hashes and checks passwords with bcrypt. A hash fills a core for a fifth of a second, so only `atOnce` run at a
 * time and `waiting` more may queue; beyond that, 503: all other requests go on. With a `signal`, work leaves the
 * queue when it is aborted, so that clients that hung up keep no place.
 */
export function createPasswords({ cost, atOnce, waiting }: PasswordSettings) {
  const inTurn = createQueue(atOnce, waiting)

  return {
    /** A bcrypt hash (`$2b$…`). Throws 503 when too many wait. */
    hash: (password: string, signal?: AbortSignal) =>
      inTurn(() => Bun.password.hash(password, { algorithm: 'bcrypt', cost }), signal),

    /**
     * Whether `password` is the one behind `hash`. A wrong one takes as long as one hash of the configured cost: also
     * when there is no hash (the address is unknown), when the hash is a cheaper one, and when the password is empty
     * or longer than bcrypt can take.
     */
    async verify(password: string, hash: string | undefined, signal?: AbortSignal): Promise<boolean> {
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
      }, signal)
    },

    /** Whether a hash has another cost than the configured one, and is to be replaced when its password is known. */
    isOutdated: (hash: string): boolean => costOf(hash) !== cost,

    /** How many are being hashed or checked, and how many wait. */
    stats: inTurn.stats,
  }
}

/** `undefined` for a hash that is damaged or not bcrypt's, which takes no time. */
const matchesHash = (password: string, hash: string): Promise<boolean | undefined> =>
  Bun.password.verify(password, hash, 'bcrypt').catch(() => undefined)

/** Takes as long as a check against a hash of this cost. It is the hash of no known text. */
const spend = (password: string, cost: number) =>
  matchesHash(password, `$2b$${String(cost).padStart(2, '0')}$${'.'.repeat(53)}`)

const costOf = (hash = ''): number | undefined => {
  const [, cost] = /^\$2[abxy]\$(\d\d)\$/.exec(hash) ?? []
  return cost === undefined ? undefined : Number(cost)
}

/** Runs work in turn, `atOnce` at a time; what still waits leaves by its signal. */
function createQueue(atOnce: number, waitingMax: number) {
  let running = 0
  const waiting = new Set<() => void>()

  const inTurn = async <T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> => {
    if (signal?.aborted) throw hungUp()
    if (running < atOnce) running++
    else if (waiting.size >= waitingMax) throw new AppError('unavailable')
    else await turn(signal)
    try {
      return await work()
    } finally {
      // The place is handed over, so `running` stays as it is while others wait.
      const [next] = waiting
      if (next) next()
      else running--
    }
  }

  const turn = (signal?: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
      const leave = () => {
        waiting.delete(enter)
        reject(hungUp())
      }
      const enter = () => {
        waiting.delete(enter)
        signal?.removeEventListener('abort', leave)
        resolve()
      }
      waiting.add(enter)
      signal?.addEventListener('abort', leave)
    })

  return Object.assign(inTurn, { stats: () => ({ running, waiting: waiting.size }) })
}

/** Answered to no client; it ends the work of a request whose client has gone. */
const hungUp = () => new AppError('bad_request')
