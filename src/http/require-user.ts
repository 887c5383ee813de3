import { Elysia } from 'elysia'
import { AppError } from '../lib/errors.ts'

/** Finds out who a bearer token speaks for; throws `invalid_token`. */
export type Authenticate<User> = (token: string) => User | Promise<User>

/**
 * Everything registered after it needs a bearer token (RFC 6750) and finds `user`. A `derive`, because that runs
 * before validation: a stranger gets 401 and learns nothing about what the route takes.
 */
export const requireUser = <User extends object>(authenticate: Authenticate<User>) =>
  new Elysia({ name: 'require-user' }).derive({ as: 'scoped' }, async ({ headers }) => {
    const token = bearerToken(headers.authorization)
    if (token === undefined) throw new AppError('not_authenticated')
    return { user: await authenticate(token) }
  })

function bearerToken(authorization = ''): string | undefined {
  // Whatever stands behind the word: what is no token there is a wrong one, and not a missing one.
  return /^bearer +(\S.*)$/i.exec(authorization)?.[1]
}
