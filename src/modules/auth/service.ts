import { and, desc, eq, gt, ne, placeholder, sql } from 'drizzle-orm'
import { type Db, statement } from '../../db/client.ts'
import { brokenConstraint } from '../../db/constraint.ts'
import type { Driver } from '../../db/driver.ts'
import { sessionEnds, sessions, taskCounters, toInstant, users } from '../../db/schema.ts'
import { AppError, findAppError } from '../../errors.ts'
import { isUuid } from '../../uuid.ts'
import type { Passwords } from './passwords.ts'
import type { RefreshTokens } from './refresh-tokens.ts'
import { createTokenCache, revocationWindowSeconds } from './remembered-tokens.ts'
import type { Throttle } from './throttle.ts'
import type { Tokens } from './tokens.ts'

/** Who calls: what a verified token says, and nothing more. */
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

/** Which of a person's sessions a sign-out ends: the caller's, every one, or every other one. */
export type LogoutScope = 'local' | 'all' | 'others'

/** A refresh token is good for so long after it was made. */
const sessionLifetime = sql`interval '30 days'`
/** The refresh token before the last one is taken for so long: two tabs, a lost answer. */
const refreshGrace = sql`interval '10 seconds'`

export type AuthService = ReturnType<typeof createAuthService>

interface Parts {
  db: Db
  driver: Driver
  tokens: Tokens
  refreshTokens: RefreshTokens
  passwords: Passwords
  throttle: Throttle
}

export function createAuthService({ db, driver, tokens, refreshTokens, passwords, throttle }: Parts) {
  const tokenCache = createTokenCache(async () => {
    const [[sessionIds, databaseTime]] = (await recentEnds({})) as [[string[], number]]
    return { sessionIds, databaseTime }
  })

  const recentEnds = statement<[sessionIds: string[], databaseTime: number]>(
    driver,
    sql`
    select array(
      select session_id::text from ${sessionEnds}
      where ended_at > now() - make_interval(secs => ${revocationWindowSeconds}::int)
    ), (extract(epoch from now()) * 1000)::bigint`,
  )

  // The counter comes with the person, in one statement: without it nobody can write tasks.
  const insertUser = statement<[createdAt: string]>(
    driver,
    sql`
    with person as (
      insert into ${users} (id, email, email_key, password_hash)
      values (${placeholder('id')}, ${placeholder('email')}, ${placeholder('key')}, ${placeholder('hash')})
      returning id, created_at
    ), counter as (
      insert into ${taskCounters} (user_id) select id from person
    )
    select created_at from person`,
  )

  // Only for the password that was checked: it may have been changed, or the account disabled, in the meantime.
  const insertSession = statement<[id: string]>(
    driver,
    sql`
    insert into ${sessions} (id, user_id, token_hash, expires_at, ip, user_agent)
    select ${placeholder('id')}::uuid, u.id, ${placeholder('tokenHash')}::text, now() + ${sessionLifetime},
           ${placeholder('ip')}::text, ${placeholder('userAgent')}::text
    from ${users} u
    where u.id = ${placeholder('user')}::uuid and u.password_hash = ${placeholder('hash')}::text and u.disabled_at is null
    for share of u
    returning id`,
  )

  // `last_used_at` is for people: written at most every five minutes, in the statement that is needed anyway.
  const liveSession = statement<[expiresInMs: number]>(
    driver,
    sql`
    with live as (
      select id, last_used_at, expires_at from ${sessions}
      where id = ${placeholder('session')}::uuid and user_id = ${placeholder('user')}::uuid and expires_at > now()
    ), touched as (
      update ${sessions} s set last_used_at = now() from live
      where s.id = live.id and live.last_used_at < now() - interval '5 minutes'
    )
    select (extract(epoch from expires_at - now()) * 1000)::bigint from live`,
  )

  // Whoever comes second with the same token waits for the row, finds itself the previous one, and gets the same child.
  const rotate = statement<[userId: string]>(
    driver,
    sql`
    update ${sessions} s set
      previous_hash = ${placeholder('hash')}::text,
      token_hash = ${placeholder('next')}::text,
      rotated_at = case when s.token_hash = ${placeholder('hash')}::text then now() else s.rotated_at end,
      expires_at = case when s.token_hash = ${placeholder('hash')}::text then now() + ${sessionLifetime} else s.expires_at end,
      last_used_at = now()
    where s.id = ${placeholder('session')}::uuid and s.expires_at > now()
      and (s.token_hash = ${placeholder('hash')}::text
        or (s.previous_hash = ${placeholder('hash')}::text and s.rotated_at > now() - ${refreshGrace}))
    returning s.user_id`,
  )

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

  /** A new session; `undefined` when the password is no longer the one that was checked, or the account is disabled. */
  async function openSession(user: { id: string; hash: string }, { ip, userAgent }: Client) {
    const id = Bun.randomUUIDv7()
    const refreshToken = refreshTokens.first(id)
    const tokenHash = refreshTokens.hash(refreshToken)
    const [session] = await insertSession({ id, user: user.id, hash: user.hash, tokenHash, ip, userAgent })
    return session && createTokenPair(user.id, id, refreshToken)
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
    const [session] = await liveSession({ session: claims.sid, user: claims.sub })
    if (!session) {
      tokenCache.forget(token)
      throw new AppError('invalid_token')
    }
    const caller = { id: claims.sub, sessionId: claims.sid }
    tokenCache.remember(token, { caller, exp: claims.exp, checkedAt, sessionMs: session[0] })
    return caller
  }

  return {
    /** Makes an account. Throws `email_taken`, also when two requests for one address race: the database decides. */
    async register(input: { email: string; password: string }, { signal }: Pick<Client, 'signal'>) {
      const email = input.email.trim()
      const id = Bun.randomUUIDv7()
      const hash = await passwords.hash(input.password, signal)
      try {
        const [row] = await insertUser({ id, email, key: emailKey(email), hash })
        return { id, email, created_at: toInstant(row![0]) }
      } catch (error) {
        if (brokenConstraint(error) === 'users_email_key_unique') throw new AppError('email_taken')
        throw error
      }
    },

    /** Signs a user in: a new session and its tokens. Throws `incorrect_login`, the same for every reason. */
    async login(input: { username: string; password: string }, client: Client): Promise<TokenPair> {
      const key = emailKey(input.username)
      // Twice at most: a sign-in at the same moment may have renewed the hash between the check and the new session.
      for (let attempt = 1; attempt <= 2; attempt++) {
        const user = await throttle.guess(key, client.ip, async () => {
          const [found] = await db
            .select({ id: users.id, hash: users.passwordHash })
            .from(users)
            .where(eq(users.emailKey, key))
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
      const hash = refreshTokens.hash(refreshToken)
      const [session] = await rotate({ session: sessionId, hash, next: refreshTokens.hash(next) })
      if (session) return createTokenPair(session[0], sessionId, next)
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
        .where(and(eq(sessions.userId, id), gt(sessions.expiresAt, sql`now()`)))
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
      await endSessions(
        sql`${sessions.id} in (select id from ${sessions} where expires_at < now() limit 1000)`,
      )
      await db.delete(sessionEnds).where(sql`${sessionEnds.endedAt} < now() - interval '5 minutes'`)
      await throttle.cleanUp()
    },
  }
}

/** An address as it is compared: without regard to case. */
export const emailKey = (email: string) => email.trim().normalize('NFC').toLowerCase()
