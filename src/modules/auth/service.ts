import { and, desc, eq, gt, inArray, isNull, lt, ne, or, placeholder, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { brokenConstraint } from '../../db/pg-error.ts'
import { sessionEnds, sessions, users, userVersions } from '../../db/tables.ts'
import { AppError, findAppError } from '../../lib/errors.ts'
import { isUuid } from '../../lib/uuid.ts'
import type { Passwords } from './passwords.ts'
import type { RefreshTokens } from './refresh-tokens.ts'
import type { Throttle } from './throttle.ts'
import { createTokenCache, revocationWindowSeconds } from './token-cache.ts'
import type { Tokens } from './tokens.ts'

/** The user and session behind a request: what a verified token says, and nothing more. */
export interface Caller {
  id: string
  sessionId: string
}

/** Where a request comes from. */
export interface Client {
  ip: string | null
  userAgent: string | null
  /** Aborted when the client has hung up. */
  signal: AbortSignal
}

export interface TokenPair {
  access_token: string
  token_type: 'bearer'
  expires_in: number
  refresh_token: string
}

/** Which of a user's sessions a sign-out ends: the caller's, every one, or every other one. */
export type LogoutScope = 'local' | 'all' | 'others'

const now = sql<string>`now()`
/** A session ends 30 days after its last refresh token was made. */
const endOfSession = sql<string>`now() + interval '30 days'`

export type AuthService = ReturnType<typeof createAuthService>

interface Parts {
  db: Db
  tokens: Tokens
  refreshTokens: RefreshTokens
  passwords: Passwords
  throttle: Throttle
}

/** Registers users, signs them in and out, and authenticates requests. */
export function createAuthService({ db, tokens, refreshTokens, passwords, throttle }: Parts) {
  const recentRevocations = prepareRevocations(db)
  const liveSession = prepareLiveSession(db)
  const tokenCache = createTokenCache(async () => (await recentRevocations.execute())[0]!)

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

  /** The counter comes with the user, in one statement: without it the user cannot write tasks. */
  function insertUser(user: typeof users.$inferInsert) {
    const inserted = db
      .$with('inserted')
      .as(db.insert(users).values(user).returning({ createdAt: users.createdAt }))
    const counter = db
      .$with('counter')
      .as(db.insert(userVersions).values({ userId: user.id }).returning({ userId: userVersions.userId }))
    return db.with(inserted, counter).select().from(inserted)
  }

  /** A new session; `undefined` when the password is no longer the one that was checked, or the account is disabled. */
  async function openSession(user: { id: string; hash: string }, { ip, userAgent }: Client) {
    const id = Bun.randomUUIDv7()
    const refreshToken = refreshTokens.first(id)
    const owner = db
      .select({
        id: sql<string>`${id}::uuid`.as('id'),
        userId: users.id,
        tokenHash: sql<string>`${refreshTokens.hash(refreshToken)}::text`.as('token_hash'),
        previousHash: sql<null>`null::text`.as('previous_hash'),
        rotatedAt: now.as('rotated_at'),
        createdAt: now.as('created_at'),
        lastUsedAt: now.as('last_used_at'),
        expiresAt: endOfSession.as('expires_at'),
        userAgent: sql<string | null>`${userAgent}::text`.as('user_agent'),
        ip: sql<string | null>`${ip}::text`.as('ip'),
      })
      .from(users)
      .where(and(eq(users.id, user.id), eq(users.passwordHash, user.hash), isNull(users.disabledAt)))
      // A change of the password that is under way comes first, and is seen.
      .for('share')
    const [session] = await db.insert(sessions).select(owner).returning({ id: sessions.id })
    return session && createTokenPair(user.id, id, refreshToken)
  }

  /**
   * Puts the next refresh token in the place of the last one. Of two requests with one token the second waits for the
   * row, finds its token to be the previous one, and gets the same child.
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

  /**
   * After a good sign-in: a hash of another cost than the configured one becomes one of this cost, unless the password
   * was changed meanwhile. Sessions stay. When it fails (too busy, the database away) the next sign-in tries again.
   */
  async function renewHash({ id, hash }: { id: string; hash: string }, password: string): Promise<void> {
    if (!passwords.isOutdated(hash)) return
    try {
      const passwordHash = await passwords.hash(password)
      await db
        .update(users)
        .set({ passwordHash })
        .where(and(eq(users.id, id), eq(users.passwordHash, hash)))
    } catch (error) {
      if (!findAppError(error)) throw error
    }
  }

  async function endSessions(...which: Parameters<typeof and>): Promise<string[]> {
    const ended = await db
      .delete(sessions)
      .where(and(...which))
      .returning({ id: sessions.id })
    const ids = ended.map(session => session.id)
    tokenCache.revoke(ids)
    return ids
  }

  /** Looks the session of a token up in the database; called only when `tokenCache` does not know that it is alive. */
  async function loadSession(token: string): Promise<Caller> {
    const checkedAt = performance.now()
    const claims = tokenCache.claims(token) ?? (await tokens.verify(token))
    if (!claims || !isUuid(claims.sub) || !isUuid(claims.sid)) throw new AppError('invalid_token')
    const [session] = await liveSession.execute({ session: claims.sid, user: claims.sub })
    if (!session) {
      tokenCache.forget(token)
      throw new AppError('invalid_token')
    }
    const caller = { id: claims.sub, sessionId: claims.sid }
    tokenCache.remember(token, { caller, exp: claims.exp, checkedAt, sessionMs: session.leftMs })
    return caller
  }

  return {
    /** Makes an account. Throws `email_taken`, also when two requests for one address race: the database decides. */
    async register(input: { email: string; password: string }, { signal }: Pick<Client, 'signal'>) {
      const email = input.email.trim()
      const id = Bun.randomUUIDv7()
      const hash = await passwords.hash(input.password, signal)
      try {
        const [row] = await insertUser({
          id,
          email,
          normalizedEmail: normalizeEmail(email),
          passwordHash: hash,
        })
        return { id, email, created_at: row!.createdAt }
      } catch (error) {
        if (brokenConstraint(error) === 'users_normalized_email_unique') throw new AppError('email_taken')
        throw error
      }
    },

    /** Signs a user in: a new session and its tokens. Throws `incorrect_login`, the same for every reason. */
    async login(input: { username: string; password: string }, client: Client): Promise<TokenPair> {
      const key = normalizeEmail(input.username)
      // Twice at most: a sign-in at the same moment may have renewed the hash between the check and the new session.
      for (let attempt = 1; attempt <= 2; attempt++) {
        const user = await throttle.limitAttempts(key, client.ip, async () => {
          const [found] = await db
            .select({ id: users.id, hash: users.passwordHash })
            .from(users)
            // A disabled account is as one that does not exist, in what is answered and in how long it takes.
            .where(and(eq(users.normalizedEmail, key), isNull(users.disabledAt)))
          const matches = await passwords.verify(input.password, found?.hash, client.signal)
          return matches ? found : undefined
        })
        if (!user) break
        const pair = await openSession(user, client)
        if (!pair) continue
        await renewHash(user, input.password)
        return pair
      }
      throw new AppError('incorrect_login')
    },

    /**
     * The next pair of tokens. The token before the last one gives the same pair for ten seconds; an older one means
     * that a token was stolen, and ends the session. Throws `invalid_token`.
     */
    async refresh(refreshToken: string): Promise<TokenPair> {
      const read = refreshTokens.read(refreshToken)
      if (!read) throw new AppError('invalid_token')
      const { sessionId, next } = read
      const [session] = await rotate(sessionId, refreshTokens.hash(refreshToken), refreshTokens.hash(next))
      if (session) return createTokenPair(session.userId, sessionId, next)
      await endSessions(eq(sessions.id, sessionId))
      throw new AppError('invalid_token')
    },

    /** Ends sessions of the caller; their tokens stop working. */
    async logout({ id, sessionId }: Caller, scope: LogoutScope): Promise<void> {
      const which = {
        local: eq(sessions.id, sessionId),
        others: ne(sessions.id, sessionId),
        all: undefined,
      }
      await endSessions(eq(sessions.userId, id), which[scope])
    },

    /** The caller's sessions, newest first. */
    async sessions({ id, sessionId }: Caller) {
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
        .limit(1000)
      return rows.map(session => ({ ...session, current: session.id === sessionId }))
    },

    /** Ends one session of the caller. Throws `session_not_found`. */
    async endSession({ id }: Caller, sessionId: string): Promise<void> {
      const ended = isUuid(sessionId)
        ? await endSessions(eq(sessions.userId, id), eq(sessions.id, sessionId))
        : []
      if (ended.length === 0) throw new AppError('session_not_found')
    },

    /** Who a bearer token speaks for. Throws `invalid_token` when it is not ours, has ended, or its session has. */
    authenticate: (token: string): Caller | Promise<Caller> => tokenCache.caller(token) ?? loadSession(token),

    /** How many tokens need no look into the database. */
    cachedTokens: () => tokenCache.size,

    /** Tells this process that sessions have ended; the other replicas read it in the database. */
    revokeSessions: tokenCache.revoke,

    /** Removes what has had its time: sessions, notes of their end, counters. */
    async cleanUp(): Promise<void> {
      const over = db
        .select({ id: sessions.id })
        .from(sessions)
        .where(lt(sessions.expiresAt, now))
        .limit(1000)
      await endSessions(inArray(sessions.id, over))
      await db.delete(sessionEnds).where(lt(sessionEnds.endedAt, sql`now() - interval '5 minutes'`))
      await throttle.cleanUp()
    },
  }
}

/** Prepared, because it runs four times a second. An aggregate: one row, also when no session ended. */
const prepareRevocations = (db: Db) =>
  db
    .select({
      sessionIds: sql<string[]>`coalesce(array_agg(${sessionEnds.sessionId}::text), '{}')`,
      databaseTime: sql<number>`(date_part('epoch', now()) * 1000)::bigint`,
    })
    .from(sessionEnds)
    .where(gt(sessionEnds.endedAt, sql`now() - make_interval(secs => ${revocationWindowSeconds}::int)`))
    .prepare('poll_revocations')

/**
 * Prepared, because every request may need it. `last_used_at` is for display: written at most every five minutes, in
 * the statement that is needed anyway.
 */
function prepareLiveSession(db: Db) {
  const isTheirs = and(eq(sessions.id, placeholder('session')), eq(sessions.userId, placeholder('user')))
  const live = db.$with('live').as(
    db
      .select({ id: sessions.id, lastUsedAt: sessions.lastUsedAt, expiresAt: sessions.expiresAt })
      .from(sessions)
      .where(and(isTheirs, gt(sessions.expiresAt, now))),
  )
  const touched = db.$with('touched').as(
    db
      .update(sessions)
      .set({ lastUsedAt: now })
      .from(live)
      .where(and(eq(sessions.id, live.id), lt(live.lastUsedAt, sql`now() - interval '5 minutes'`)))
      .returning({ id: sessions.id }),
  )
  return db
    .with(live, touched)
    .select({ leftMs: sql<number>`(date_part('epoch', ${live.expiresAt} - now()) * 1000)::bigint` })
    .from(live)
    .prepare('live_session')
}

/** An address as it is compared: without regard to case. */
export const normalizeEmail = (email: string) => email.trim().normalize('NFC').toLowerCase()
