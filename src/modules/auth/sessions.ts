import { and, desc, eq, gt, isNull, ne, or, placeholder, type SQL, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { own, sessions, users } from '../../db/tables.ts'
import { setCaller, withoutTimeBudget } from '../../db/time-budget.ts'
import type { Client } from '../../http/client.ts'
import type { Caller } from '../../http/require-user.ts'
import { isApiToken } from '../../lib/api-token.ts'
import { AppError } from '../../lib/errors.ts'
import { sessionScopes } from '../../lib/scope.ts'
import { sha256 } from '../../lib/sha256.ts'
import { isUuid } from '../../lib/uuid.ts'
import type { ApiTokens } from './api-tokens.ts'
import { endRows } from './end-access.ts'
import type { TokenPair } from './model.ts'
import type { RefreshTokens } from './refresh-tokens.ts'
import { isSurplus } from './surplus.ts'
import type { TokenCache } from './token-cache.ts'
import type { Tokens } from './tokens.ts'

/** Which of a user's sessions a sign-out ends: the caller's, every one, or every other one. */
type LogoutScope = 'local' | 'all' | 'others'

const now = sql<string>`now()`
/** A session ends 30 days after its last refresh token was made. */
const endOfSession = sql<string>`now() + interval '30 days'`

/** A sign-in beyond that ends the session that was not used for the longest time. A sign-in looks at all of them. */
const sessionsMax = 1000

export type Sessions = ReturnType<typeof createSessions>

interface Parts {
  db: Db
  tokens: Tokens
  refreshTokens: RefreshTokens
  apiTokens: Pick<ApiTokens, 'authenticate'>
  tokenCache: TokenCache
}

/** A session from its sign-in to its end, and the callers that its tokens stand for. */
export function createSessions({ db, tokens, refreshTokens, apiTokens, tokenCache }: Parts) {
  // Prepared, because every request may need it.
  const liveSession = db
    .select({
      leftMs: sql<number>`(date_part('epoch', ${sessions.expiresAt} - now()) * 1000)::bigint`,
      isUsageStale: sql<boolean>`${sessions.lastUsedAt} < now() - interval '5 minutes'`,
    })
    .from(sessions)
    .where(
      and(
        eq(sessions.userId, placeholder('user')),
        eq(sessions.id, placeholder('session')),
        gt(sessions.expiresAt, now),
      ),
    )
    .prepare('live_session')

  async function createTokenPair(
    userId: string,
    sessionId: string,
    refreshToken: string,
  ): Promise<TokenPair> {
    return {
      access_token: await tokens.sign(userId, sessionId),
      token_type: 'bearer',
      expires_in: tokens.lifetimeSeconds,
      refresh_token: refreshToken,
    }
  }

  /**
   * Replaces the refresh token. Of two requests with one token the second waits for the row, finds its token to be the
   * previous one, and receives the same child.
   */
  function rotate(sessionId: string, hash: string, nextHash: string) {
    const isLast = eq(sessions.tokenHash, hash)
    const isPrevious = and(
      eq(sessions.previousHash, hash),
      gt(sessions.rotatedAt, sql`now() - interval '10 seconds'`),
    )
    return db
      .update(sessions)
      .set({
        previousHash: hash,
        tokenHash: nextHash,
        rotatedAt: sql`case when ${isLast} then ${now} else ${sessions.rotatedAt} end`,
        expiresAt: sql`case when ${isLast} then ${endOfSession} else ${sessions.expiresAt} end`,
        lastUsedAt: now,
      })
      .where(and(eq(sessions.id, sessionId), gt(sessions.expiresAt, now), or(isLast, isPrevious)))
      .returning({ userId: sessions.userId })
  }

  async function endSessions(which: SQL | undefined): Promise<string[]> {
    const ids = await endRows(db, sessions, which)
    tokenCache.revoke(ids)
    return ids
  }

  /** Looks the session of a token up in the database; called only when `tokenCache` does not know that it is alive. */
  async function loadSession(token: string): Promise<Caller> {
    const checkedAt = performance.now()
    const claims = await tokens.verify(token)
    if (!claims) throw new AppError('invalid_token')
    const { sid, sub, exp } = claims
    setCaller(sub)
    const [session] = await liveSession.execute({ session: sid, user: sub })
    if (!session) throw new AppError('invalid_token')
    const { leftMs, isUsageStale } = session
    // For display, so it is written at most every five minutes, and no request waits for it or fails with it.
    if (isUsageStale) {
      const note = db
        .update(sessions)
        .set({ lastUsedAt: now })
        .where(own(sessions, sub, sid))
      void withoutTimeBudget(() => note.catch(() => {}))
    }
    const caller = { id: sub, sessionId: sid, scopes: sessionScopes }
    tokenCache.remember(token, caller, checkedAt, Math.min(leftMs, exp * 1000 - Date.now()))
    return caller
  }

  return {
    /**
     * The end of every sign-in method: opens a session for a user who has proved who they are. `proof` is a condition
     * on the user's row that the method has checked and that must still hold when the session is written, such as "has
     * this password hash". Returns `undefined` when it no longer does, or when the account is disabled.
     */
    async openSession(
      userId: string,
      proof: SQL,
      { ip, userAgent }: Pick<Client, 'ip' | 'userAgent'>,
    ): Promise<TokenPair | undefined> {
      // Not those of all who sign in from one address, such as a proxy that is not trusted, one after the other.
      setCaller(userId)
      const id = Bun.randomUUIDv7()
      const refreshToken = refreshTokens.first(id)
      const tokenHash = sha256(refreshToken)
      const ended = await db.transaction(async tx => {
        const [owner] = await tx
          .select({ id: users.id })
          .from(users)
          .where(and(eq(users.id, userId), proof, isNull(users.disabledAt)))
          // Waits for a change of the row that is under way, and sees it.
          .for('share')
        if (!owner) return undefined
        await tx.insert(sessions).values({ id, userId, tokenHash, expiresAt: endOfSession, userAgent, ip })
        return endRows(tx, sessions, isSurplus(tx, 'sessions', userId, id, sessionsMax))
      })
      if (!ended) return undefined
      tokenCache.revoke(ended)
      return createTokenPair(userId, id, refreshToken)
    },

    /**
     * The next pair of tokens. The token before the last one returns the same pair for ten seconds; an older one means
     * that a token was stolen, and ends the session. Throws `invalid_token`.
     */
    async refresh(refreshToken: string): Promise<TokenPair> {
      const read = refreshTokens.read(refreshToken)
      if (!read) throw new AppError('invalid_token')
      const { sessionId, next } = read
      const [session] = await rotate(sessionId, sha256(refreshToken), sha256(next))
      if (session) return createTokenPair(session.userId, sessionId, next)
      await endSessions(eq(sessions.id, sessionId))
      throw new AppError('invalid_token')
    },

    /** The caller behind a bearer token. Throws `invalid_token` when it is not ours, has ended, or its session has. */
    authenticate: (token: string): Caller | Promise<Caller> =>
      tokenCache.caller(token) ?? (isApiToken(token) ? apiTokens.authenticate(token) : loadSession(token)),

    /** The caller's sessions, newest first. */
    async list({ id, sessionId }: Caller) {
      const rows = await db
        .select({
          id: sessions.id,
          created_at: sessions.createdAt,
          last_used_at: sessions.lastUsedAt,
          expires_at: sessions.expiresAt,
          user_agent: sessions.userAgent,
          ip: sessions.ip,
        })
        .from(sessions)
        .where(and(eq(sessions.userId, id), gt(sessions.expiresAt, now)))
        .orderBy(desc(sessions.id))
      return rows.map(session => ({ ...session, current: session.id === sessionId }))
    },

    /** Ends sessions of the caller; their tokens stop working. */
    async logout({ id, sessionId }: Caller, scope: LogoutScope): Promise<void> {
      const which = {
        local: eq(sessions.id, sessionId),
        others: ne(sessions.id, sessionId),
        all: undefined,
      }
      await endSessions(and(eq(sessions.userId, id), which[scope]))
      // Also one that had ended long ago, unnoticed here: its end was committed late, or recorded by no trigger.
      if (scope !== 'others') tokenCache.revoke([sessionId])
    },

    /** Ends one session of the caller. Throws `session_not_found`. */
    async end({ id }: Caller, sessionId: string): Promise<void> {
      const ended = isUuid(sessionId) ? await endSessions(own(sessions, id, sessionId)) : []
      if (ended.length === 0) throw new AppError('session_not_found')
    },

    /** Ends the session that an access token or a refresh token names, if it is one of ours. */
    async endByToken(token: string): Promise<void> {
      const claims = await tokens.verify(token)
      if (claims) await endSessions(own(sessions, claims.sub, claims.sid))
      const sessionId = refreshTokens.read(token)?.sessionId
      if (sessionId) await endSessions(eq(sessions.id, sessionId))
    },
  }
}
