import type { Caller } from './service.ts'
import type { Claims } from './tokens.ts'

/** How many tokens are remembered; the one remembered first goes first. */
const tokensMax = 10_000
/** A session counts as alive for so long after it was last seen alive. With `askEveryMs` it stays below a second. */
const trustMs = 700
const askEveryMs = 250
/** What `readEnds` covers. An end is committed within seconds of its time stamp, so that none falls between two answers. */
export const endsWindowSeconds = 15
/** Even so, a session is looked up again now and then. */
const recheckMs = 5 * 60_000

interface Remembered {
  caller: Caller
  /** Milliseconds since 1970. */
  expiresAt: number
  /** When the session was last looked up by itself. */
  checkedAt: number
}

export type RememberedTokens = ReturnType<typeof createRememberedTokens>

/**
 * Remembers tokens whose signature was verified and whose session was found alive, so that the next request with the
 * same token costs neither.
 *
 * That a signature is good never changes. That a session is alive does: so every 250 ms one question for all,
 * "which sessions ended lately?", goes to the database, as long as requests come. While its answers come, whoever is
 * not among them is alive; when they stop coming (the database is slow or away), or nobody asked for a while, each
 * session is looked up by itself again. This needs nothing of the database that a transaction-pooling proxy lacks.
 */
export function createRememberedTokens(readEnds: () => Promise<string[]>, now: () => number = Date.now) {
  const tokens = new Map<string, Remembered>()
  let endedLately = new Set<string>()
  /** When the question was asked that was answered last. */
  let answeredAsOf = Number.NEGATIVE_INFINITY
  /** Since when the answers leave no gap. */
  let answeredSince = Number.NEGATIVE_INFINITY
  let asking = false
  let askedAt = Number.NEGATIVE_INFINITY

  function isAlive({ checkedAt, caller }: Remembered, at: number): boolean {
    if (endedLately.has(caller.sessionId) || at - checkedAt > recheckMs) return false
    const knownAliveAt = checkedAt >= answeredSince ? Math.max(checkedAt, answeredAsOf) : checkedAt
    return at - knownAliveAt < trustMs
  }

  async function ask() {
    asking = true
    askedAt = now()
    const asOf = askedAt
    try {
      const ends = await readEnds()
      if (asOf - answeredAsOf > (endsWindowSeconds * 1000) / 2) answeredSince = asOf
      answeredAsOf = asOf
      endedLately = new Set(ends)
      forgetEnded()
    } catch {
      // The requests that need the database meet the same failure, and report it.
    } finally {
      asking = false
    }
  }

  function forgetEnded() {
    if (endedLately.size === 0) return
    for (const [token, { caller }] of tokens) if (endedLately.has(caller.sessionId)) tokens.delete(token)
  }

  return {
    /** Whom a token speaks for, if that is known without asking anybody. */
    caller(token: string): Caller | undefined {
      const at = now()
      if (!asking && at - askedAt >= askEveryMs) void ask()
      const known = tokens.get(token)
      return known && at < known.expiresAt && isAlive(known, at) ? known.caller : undefined
    },

    /** What a token says, if its signature is known to be good and its time has not come. */
    claims(token: string): Claims | undefined {
      const known = tokens.get(token)
      if (!known || now() >= known.expiresAt) return undefined
      const { id: sub, sessionId: sid } = known.caller
      return { sub, sid, exp: known.expiresAt / 1000 }
    },

    /** Notes that a token is good and that its session was alive at `checkedAt` (before the database was asked). */
    remember(token: string, caller: Caller, expiresAt: number, checkedAt: number) {
      if (endedLately.has(caller.sessionId)) return
      tokens.delete(token)
      if (tokens.size >= tokensMax) tokens.delete(tokens.keys().next().value!)
      tokens.set(token, { caller, expiresAt, checkedAt })
    },

    forget(token: string) {
      tokens.delete(token)
    },

    /** Sessions that this process itself has just ended: their tokens stop working at once. */
    forgetSessions(sessionIds: readonly string[]) {
      for (const id of sessionIds) endedLately.add(id)
      forgetEnded()
    },

    get size() {
      return tokens.size
    },
  }
}
