import { Elysia } from 'elysia'
import { setCaller } from '../db/time-budget.ts'
import { AppError } from '../lib/errors.ts'
import { requireScope, type Scope } from '../lib/scope.ts'
import type { UserId } from '../lib/user-id.ts'
import { documented, errors } from './error-responses.ts'

/** Who makes a request, as the bearer token says. */
export interface Caller {
  id: UserId
  /** The session or the API token: when it ends, so does the access of this caller. */
  sessionId: string
  scopes: ReadonlySet<Scope>
}

/** The caller behind a bearer token. Throws `invalid_token`. */
export type Authenticate = (token: string) => Caller | Promise<Caller>

/** What routes require: one scope for all, or one for those that read (GET, HEAD) and one for those that write. */
type RequiredScope = Scope | { read: Scope; write: Scope }

/**
 * Every route after it needs a bearer token (RFC 6750) with the scope, has `user`, and declares 401 and 403. A `derive`,
 * because that runs before validation: without a token the answer is 401, which reveals nothing about what the route
 * accepts.
 */
export const requireUser = (authenticate: Authenticate, required: RequiredScope) => {
  const scopes = typeof required === 'string' ? { read: required, write: required } : required
  // 422: for parameters that the route does not know (`unknown-names.ts`).
  const response = {
    ...errors('not_authenticated', 'invalid_token', 'insufficient_scope', 'validation_failed'),
    // For the OpenAPI document, which knows of a guard only its responses.
    ...documented(() => ({ 401: { scopes } })),
  }
  return new Elysia()
    .guard({ as: 'scoped', response })
    .derive({ as: 'scoped' }, async ({ headers, request: { method } }) => {
      const token = bearerToken(headers.authorization)
      if (token === undefined) throw new AppError('not_authenticated')
      const user = await authenticate(token)
      requireScope(user.scopes, method === 'GET' || method === 'HEAD' ? scopes.read : scopes.write)
      setCaller(user.id)
      return { user }
    })
}

/** The token of an `Authorization` header. */
export function bearerToken(authorization = ''): string | undefined {
  // Anything after the scheme counts as a token: a malformed one is invalid, not missing.
  return /^bearer +(\S.*)$/i.exec(authorization)?.[1]
}
