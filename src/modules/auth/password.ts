import { and, eq, isNull } from 'drizzle-orm'
import { Elysia } from 'elysia'
import type { Config } from '../../config/config.ts'
import type { Db } from '../../db/drizzle.ts'
import { users } from '../../db/tables.ts'
import { body } from '../../http/body.ts'
import type { Client, ClientOf } from '../../http/client.ts'
import { documented, errors } from '../../http/error-responses.ts'
import { oauthBody, oauthErrors } from '../../http/oauth-body.ts'
import { withHeaders } from '../../http/schema.ts'
import { AppError, findAppError } from '../../lib/errors.ts'
import { provePassword } from './current-password.ts'
import {
  account,
  login,
  normalizeEmail,
  registration,
  type TokenPair,
  tokenPair,
  withUsername,
} from './model.ts'
import { insertUser } from './new-user.ts'
import type { Passwords } from './password-hash.ts'
import type { Sessions } from './sessions.ts'
import type { Throttle } from './throttle.ts'

interface Parts {
  db: Db
  registration: Config['registration']
  sessions: Pick<Sessions, 'openSession' | 'refresh'>
  passwords: Passwords
  throttle: Throttle
  clientOf: ClientOf
}

/** What is left of a limit, see `throttle.ts`. */
const limitHeaders = ['RateLimit', 'RateLimit-Policy']

/** A 429 says so, too. */
const limited = documented(() => ({ 429: { headers: limitHeaders } }))

/** The sign-in method with an e-mail address and a password. */
export const passwordSignIn = (parts: Parts) => {
  const { registration: openness, sessions, throttle, clientOf } = parts
  const { register, login: signIn } = createPasswordService(parts)

  /** Counts the call, sets the headers that say what is left, and refuses a call over the limit. */
  async function limit(kind: 'login' | 'register', { ip }: Client, set: { headers: object }) {
    Object.assign(set.headers, await throttle.limitCalls(kind, ip))
  }

  const registrationRoute = new Elysia()
    .onTransform(() => {
      if (openness === 'closed') throw new AppError('registration_closed')
    })
    .use(body({ forms: true }))
    .post(
      '/register',
      async ({ body, request, set, status }) => {
        const client = clientOf(request)
        await limit('register', client, set)
        return status(201, await register(body, client))
      },
      {
        body: registration,
        response: {
          201: withHeaders(account, ...limitHeaders),
          ...errors('email_taken', 'registration_closed', 'too_many_requests'),
          ...limited,
        },
        detail: {
          operationId: 'register',
          summary: 'Create an account',
          description: 'One account per e-mail address, whatever the case of its letters.',
        },
      },
    )

  const tokenEndpoint = new Elysia().use(oauthBody()).post(
    '/login',
    async ({ body, request, set }) => {
      if (body.grant_type === 'refresh_token') return sessions.refresh(body.refresh_token)
      const client = clientOf(request)
      await limit('login', client, set)
      return signIn(body, client)
    },
    {
      transform: (context: { body: unknown }) => {
        context.body = withUsername(context.body)
      },
      body: login,
      response: {
        200: withHeaders(tokenPair, ...limitHeaders),
        ...oauthErrors('incorrect_login', 'invalid_token', 'too_many_requests'),
        ...limited,
      },
      detail: {
        operationId: 'login',
        summary: 'Sign in',
        description:
          'The OAuth 2 password grant: a form with `username` (the e-mail address) and `password`. JSON works too. ' +
          'It is the token endpoint, so a client with one address for both grants may refresh here: a form with ' +
          '`grant_type=refresh_token` and `refresh_token`.',
      },
    },
  )

  return new Elysia().use(registrationRoute).use(tokenEndpoint)
}

function createPasswordService(parts: Parts) {
  const { db, sessions, passwords } = parts

  /**
   * After a sign-in: a hash of another cost than the configured one is replaced, unless the password was changed
   * meanwhile. Sessions stay. When it fails (too busy, the database away) the next sign-in tries again.
   */
  async function renewHash({ id, hash }: { id: string; hash: string }, password: string, client: Client) {
    if (!passwords.isOutdated(hash)) return
    try {
      const passwordHash = await passwords.hash(password, client)
      await db
        .update(users)
        .set({ passwordHash })
        .where(and(eq(users.id, id), eq(users.passwordHash, hash)))
    } catch (error) {
      if (!findAppError(error)) throw error
    }
  }

  return {
    /** Creates an account. An address that is taken breaks a constraint. */
    register: async (input: { email: string; password: string }, client: Client) =>
      insertUser(db, input.email, await passwords.hash(input.password, client)),

    /** Signs a user in: a new session and its tokens. Throws `incorrect_login`, the same for every reason. */
    async login(input: { username: string; password: string }, client: Client): Promise<TokenPair> {
      const key = normalizeEmail(input.username)
      // A disabled account is answered like an unknown one, and takes as long.
      const which = and(eq(users.normalizedEmail, key), isNull(users.disabledAt))
      const pair = await provePassword(parts, { which, key }, input.password, client, async user => {
        const pair = await sessions.openSession(user.id, eq(users.passwordHash, user.hash), client)
        if (pair) await renewHash(user, input.password, client)
        return pair
      })
      if (!pair) throw new AppError('incorrect_login')
      return pair
    },
  }
}
