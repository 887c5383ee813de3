import { Elysia } from 'elysia'
import { AppError } from '../lib/errors.ts'
import { errors } from './schema.ts'

/** The user of a bearer token. Throws `invalid_token`. */
export type Authenticate<User> = (token: string) => User | Promise<User>

/**
 * Every route after it needs a bearer token (RFC 6750), has `user`, and declares 401. A `derive`, because that runs
 * before validation: without a token the answer is 401, which reveals nothing about what the route accepts.
 */
export const requireUser = <User extends object>(authenticate: Authenticate<User>) =>
  new Elysia({ name: 'require-user' })
    // 422: for parameters that the route does not know (`unknown-names.ts`).
    .guard({ as: 'scoped', response: errors('not_authenticated', 'invalid_token', 'validation_failed') })
    .derive({ as: 'scoped' }, async ({ headers }) => {
      const token = bearerToken(headers.authorization)
      if (token === undefined) throw new AppError('not_authenticated')
      return { user: await authenticate(token) }
    })

/** The token of an `Authorization` header. */
export function bearerToken(authorization = ''): string | undefined {
  // Anything after the scheme counts as a token: a malformed one is invalid, not missing.
  return /^bearer +(\S.*)$/i.exec(authorization)?.[1]
}
