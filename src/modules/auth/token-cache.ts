import { gt, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { sessionEnds } from '../../db/tables.ts'
import { withoutTimeBudget } from '../../db/time-budget.ts'
import type { Caller } from '../../http/require-user.ts'

/** How long a session counts as alive after it was last seen alive. With `pollEveryMs` it stays below a second. */
const trustMs = 700
const pollEveryMs = 250
/** The window of a poll: a revocation is committed within seconds of its timestamp, so no poll misses it. */
const revocationWindowSeconds = 15
/** Each session is looked up again at least this often. */
const recheckMs = 5 * 60_000

/** Sessions and API tokens that ended in the last `revocationWindowSeconds`, and the database's clock (ms since 1970) at the poll. */
export interface Revocations {
  databaseTime: number
  sessionIds: string[]
}

interface Entry {
  caller: Caller
  /** When the token or its session ends. */
  endsAt: number
  /** When the session itself was last looked up. */
  checkedAt: number
}

export type TokenCache = ReturnType<typeof createTokenCache>

/**
 * Keeps tokens whose signature was verified and whose session was found alive, so that the next request with the same
 * token repeats neither. An API token counts as a session of its own.
 *
 * A session may end: so while requests arrive, one poll every 250 ms asks the database for the sessions that ended
 * recently. As long as polls succeed, a session that none of them names is alive; after a gap (the database is slow or
 * away, or no request arrived) each session is looked up again. Works through a transaction-pooling proxy. At most
 * `tokensMax` are kept; the oldest entry is dropped first.
 *
 * `now` never steps: with a clock that is set back, a session would count as "seen alive a moment ago" for the length of
 * the step.
 */
export function createTokenCache(
  pollRevocations: () => Promise<Revocations>,
  tokensMax = 10_000,
  now = () => performance.now(),
) {
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

  function isAlive({ checkedAt, endsAt }: Entry, at: number): boolean {
    if (at >= endsAt || at - checkedAt > recheckMs) return false
    const knownAliveAt = checkedAt >= coveredSince ? Math.max(checkedAt, polledAt) : checkedAt
    return at - knownAliveAt < trustMs
  }

  async function poll() {
    polling = true
    pollStartedAt = now()
    try {
      const revocations = await pollRevocations()
      // By the database's clock, which defines the window: it runs on while this machine is suspended, and when it is
      // set forward, the revocations since the last poll are outside the window.
      const gapMs = revocations.databaseTime - databaseTime
      if (gapMs > (revocationWindowSeconds * 1000) / 2) coveredSince = pollStartedAt
      databaseTime = revocations.databaseTime
      polledAt = pollStartedAt
      recentlyRevoked = new Set(revocations.sessionIds)
      dropRevoked()
    } catch {
      // Requests that need the database fail the same way, and report it.
    } finally {
      polling = false
    }
  }

  /** None of them is remembered again: `remember` knows them, too. */
  function dropRevoked() {
    if (recentlyRevoked.size === 0) return
    for (const [token, { caller }] of tokens) if (recentlyRevoked.has(caller.sessionId)) tokens.delete(token)
  }

  return {
    /** The caller behind a token, if known without the database. */
    caller(token: string): Caller | undefined {
      const at = now()
      if (!polling && at - pollStartedAt >= pollEveryMs) void poll()
      const entry = tokens.get(token)
      return entry && isAlive(entry, at) ? entry.caller : undefined
    },

    /**
     * Adds a verified token, whose session was alive at `checkedAt` (`performance.now()` before the query). One of them
     * ends `leftMs` later.
     */
    remember(token: string, caller: Caller, checkedAt: number, leftMs: number) {
      if (recentlyRevoked.has(caller.sessionId)) return
      tokens.delete(token)
      if (tokens.size >= tokensMax) tokens.delete(tokens.keys().next().value!)
      tokens.set(token, { caller, checkedAt, endsAt: checkedAt + leftMs })
    },

    /** Drops the tokens of sessions that this process has ended; the other replicas read them in the database. */
    revoke(sessionIds: readonly string[]) {
      for (const id of sessionIds) recentlyRevoked.add(id)
      dropRevoked()
    },

    /** The number of tokens. */
    get size() {
      return tokens.size
    },
  }
}

/**
 * Reads which sessions and API tokens ended in the last seconds; triggers record them. A request may begin it, but does not
 * wait for it.
 */
export function createRevocationPoll(db: Db): () => Promise<Revocations> {
  // Prepared, because it runs four times a second. An aggregate: one row, also when nothing ended.
  const recent = db
    .select({
      sessionIds: sql<string[]>`coalesce(array_agg(${sessionEnds.sessionId}::text), '{}')`,
      databaseTime: sql<number>`(date_part('epoch', now()) * 1000)::bigint`,
    })
    .from(sessionEnds)
    .where(gt(sessionEnds.endedAt, sql`now() - make_interval(secs => ${revocationWindowSeconds}::int)`))
    .prepare('poll_revocations')

  return () => withoutTimeBudget(async () => (await recent.execute())[0]!)
}
