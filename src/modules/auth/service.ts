import { and, eq, gt, placeholder, sql } from 'drizzle-orm'
import { type Db, statement } from '../../db/client.ts'
import { brokenConstraint } from '../../db/constraint.ts'
import type { Driver } from '../../db/driver.ts'
import { sessions, taskCounters, toInstant, users } from '../../db/schema.ts'
import { AppError } from '../../errors.ts'
import { isUuid } from '../../uuid.ts'
import type { Passwords } from './passwords.ts'
import type { Tokens } from './tokens.ts'

/** Who calls: what a verified token says, and nothing more. */
export interface Caller {
  id: string
  sessionId: string
}

/** Where a sign-in came from, for the list of sessions. */
export interface Client {
  ip: string | null
  userAgent: string | null
}

export interface TokenPair {
  access_token: string
  token_type: 'bearer'
  expires_in: number
  refresh_token: string
}

/** Days that a refresh token is good for, counted from its making. */
export const sessionLifetimeDays = 30
const sessionEnd = sql`now() + make_interval(days => ${sessionLifetimeDays}::int)`

export type AuthService = ReturnType<typeof createAuthService>

interface Parts {
  db: Db
  driver: Driver
  tokens: Tokens
  passwords: Passwords
}

export function createAuthService({ db, driver, tokens, passwords }: Parts) {
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

  const sessionInForce = statement<[true]>(
    driver,
    db
      .select({ inForce: sql`true` })
      .from(sessions)
      .where(
        and(
          eq(sessions.id, placeholder('session')),
          eq(sessions.userId, placeholder('user')),
          gt(sessions.expiresAt, sql`now()`),
        ),
      ),
  )

  async function startSession(userId: string, { ip, userAgent }: Client): Promise<TokenPair> {
    const id = Bun.randomUUIDv7()
    const refreshToken = crypto.getRandomValues(Buffer.alloc(32)).toString('base64url')
    await db
      .insert(sessions)
      .values({ id, userId, tokenHash: sha256(refreshToken), expiresAt: sessionEnd, ip, userAgent })
    return {
      access_token: await tokens.sign(userId, id),
      token_type: 'bearer',
      expires_in: tokens.lifetimeSeconds,
      refresh_token: refreshToken,
    }
  }

  return {
    /** Makes an account. Throws `email_taken`, also when two requests for one address race: the database decides. */
    async register(input: { email: string; password: string }) {
      const email = input.email.trim()
      const id = Bun.randomUUIDv7()
      const hash = await passwords.hash(input.password)
      try {
        const rows = await insertUser({ id, email, key: emailKey(email), hash })
        return { id, email, created_at: toInstant(rows[0]![0]) }
      } catch (error) {
        if (brokenConstraint(error) === 'users_email_key_unique') throw new AppError('email_taken')
        throw error
      }
    },

    /** Signs a person in: a new session and its tokens. Throws `incorrect_login`, the same for every reason. */
    async login(input: { username?: string; email?: string; password: string }, client: Client) {
      const address = input.username ?? input.email
      if (address === undefined) {
        throw new AppError('validation_failed', {
          detail: [{ loc: ['body', 'username'], msg: 'Field required', type: 'missing' }],
        })
      }
      const [user] = await db
        .select({ id: users.id, hash: users.passwordHash })
        .from(users)
        .where(eq(users.emailKey, emailKey(address)))
      const matches = await passwords.verify(input.password, user?.hash)
      if (!matches) throw new AppError('incorrect_login')
      return startSession(user!.id, client)
    },

    /** Who a bearer token speaks for. Throws `invalid_token` when it is not ours, has ended, or its session has. */
    async authenticate(token: string): Promise<Caller> {
      const claims = await tokens.verify(token)
      if (!claims || !isUuid(claims.sub) || !isUuid(claims.sid)) throw new AppError('invalid_token')
      const [row] = await sessionInForce({ session: claims.sid, user: claims.sub })
      if (!row) throw new AppError('invalid_token')
      return { id: claims.sub, sessionId: claims.sid }
    },
  }
}

/** An address as it is compared: without regard to case. */
export const emailKey = (email: string) => email.trim().normalize('NFC').toLowerCase()

const sha256 = (text: string) => new Bun.CryptoHasher('sha256').update(text).digest('hex')
