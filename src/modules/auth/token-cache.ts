import type { Caller } from './sessions.ts'
import type { Claims } from './tokens.ts'

/** How many tokens are kept; the oldest entry is dropped first. */
const tokensMax = 10_000
/** A session counts as alive for this long after it was last seen alive. With `pollEveryMs` it stays below a second. */
const trustMs = 700
const pollEveryMs = 250
/** What `pollRevocations` covers. An end is committed within seconds of its time stamp, so none falls between two polls. */
export const revocationWindowSeconds = 15
/** Even so, each session is looked up again now and then. */
const recheckMs = 5 * 60_000

/** Sessions that ended in the last `revocationWindowSeconds`, and the database's clock (ms since 1970) when it looked. */
export interface Revocations {
  databaseTime: number
  sessionIds: string[]
}

/**
 * Two clocks, in milliseconds. Every duration is measured by `elapsed`, which never steps: with a wall clock that is
 * set back, a session would count as "seen alive a moment ago" for as long as the step. `wall` is for a token's `exp`
 * alone, which is a date.
 */
export interface Clock {
  elapsed(): number
  wall(): number
}

const systemClock: Clock = { elapsed: () => performance.now(), wall: () => Date.now() }

interface Entry {
  caller: Caller
  /** The token's `exp`: seconds since 1970. */
  exp: number
  /** When the session ends, by `Clock.elapsed`. */
  endsAt: number
  /** When the session was last looked up by itself, by `Clock.elapsed`. */
  checkedAt: number
}

export type TokenCache = ReturnType<typeof createTokenCache>

/**
 * Keeps tokens whose signature was verified and whose session was found alive, so that the next request with the same
 * token costs neither.
 *
 * That a signature is good never changes. That a session is alive does: so every 250 ms one poll for all tokens,
 * "which sessions ended lately?", goes to the database, as long as requests come. While its answers come, a session
 * that is not among them is alive; when they stop coming (the database is slow or away), or no request came for a
 * while, each session is looked up by itself again. This needs nothing of the database that a transaction-pooling
 * proxy lacks.
 */
export function createTokenCache(pollRevocations: () => Promise<Revocations>, clock: Clock = systemClock) {
  const tokens = new Map<string, Entry>()
  let recentlyRevoked = new Set<string>()
  /** Start time of the last successful poll. */
  let polledAt = Number.NEGATIVE_INFINITY
  /** Start time of the first of the successful polls that leave no gap up to `polledAt`. */
  let coveredSince = Number.NEGATIVE_INFINITY
  /** The database's clock at the last successful poll. */
  let databaseTime = Number.NEGATIVE_INFINITY
  let polling = false
  let pollStartedAt = Number.NEGATIVE_INFINITY

  function isAlive({ checkedAt, caller }: Entry, at: number): boolean {
    if (recentlyRevoked.has(caller.sessionId) || at - checkedAt > recheckMs) return false
    const knownAliveAt = checkedAt >= coveredSince ? Math.max(checkedAt, polledAt) : checkedAt
    return at - knownAliveAt < trustMs
  }

  const isOver = ({ endsAt, exp }: Entry, at: number) => at >= endsAt || clock.wall() >= exp * 1000

  async function poll() {
    polling = true
    pollStartedAt = clock.elapsed()
    const startedAt = pollStartedAt
    try {
      const revocations = await pollRevocations()
      // By the clock that the window is cut with: it also runs on while this machine is suspended, and when the
      // database's clock is set forward, the ends since the last poll are out of the window.
      const gapMs = revocations.databaseTime - databaseTime
      if (gapMs > (revocationWindowSeconds * 1000) / 2) coveredSince = startedAt
      databaseTime = revocations.databaseTime
      polledAt = startedAt
      recentlyRevoked = new Set(revocations.sessionIds)
      dropRevoked()
    } catch {
      // The requests that need the database meet the same failure, and report it.
    } finally {
      polling = false
    }
  }

  function dropRevoked() {
    if (recentlyRevoked.size === 0) return
    for (const [token, { caller }] of tokens) if (recentlyRevoked.has(caller.sessionId)) tokens.delete(token)
  }

  return {
    /** The user a token speaks for, if that is known without the database. */
    caller(token: string): Caller | undefined {
      const at = clock.elapsed()
      if (!polling && at - pollStartedAt >= pollEveryMs) void poll()
      const entry = tokens.get(token)
      return entry && !isOver(entry, at) && isAlive(entry, at) ? entry.caller : undefined
    },

    /** The claims of a token, if its signature is known to be good and it has not ended. */
    claims(token: string): Claims | undefined {
      const entry = tokens.get(token)
      if (!entry || isOver(entry, clock.elapsed())) return undefined
      const { id: sub, sessionId: sid } = entry.caller
      return { sub, sid, exp: entry.exp }
    },

    /**
     * Notes that a token is good and that its session was alive at `checkedAt` (`performance.now()` before the database
     * was asked) and ends `sessionMs` later.
     */
    remember(
      token: string,
      { caller, exp, checkedAt, sessionMs }: Omit<Entry, 'endsAt'> & { sessionMs: number },
    ) {
      if (recentlyRevoked.has(caller.sessionId)) return
      tokens.delete(token)
      if (tokens.size >= tokensMax) tokens.delete(tokens.keys().next().value!)
      // What is left of the token is counted from now as well: a clock set back does not prolong it.
      const leftMs = Math.min(sessionMs, exp * 1000 - clock.wall())
      tokens.set(token, { caller, exp, checkedAt, endsAt: checkedAt + leftMs })
    },

    /** Drops one token: its session was not found. */
    forget(token: string) {
      tokens.delete(token)
    },

    /** Sessions that this process itself has just ended: their tokens stop working at once. */
    revoke(sessionIds: readonly string[]) {
      for (const id of sessionIds) recentlyRevoked.add(id)
      dropRevoked()
    },

    /** How many tokens are kept. */
    get size() {
      return tokens.size
    },
  }
}
