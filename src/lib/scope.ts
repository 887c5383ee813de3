import { AppError } from './errors.ts'

/** What an API token may be allowed to do. */
export const tokenScopes = ['tasks:read', 'tasks:write', 'account:read'] as const
export type TokenScope = (typeof tokenScopes)[number]

/** What a route requires of its caller. `session` is what only a signed-in user has, and no API token. */
export type Scope = TokenScope | 'session'

/** Those of a signed-in user, who may do everything. */
export const sessionScopes: ReadonlySet<Scope> = new Set<Scope>([...tokenScopes, 'session'])

/** Those of an API token: a token that may write may read. */
export const scopesOf = (granted: readonly TokenScope[]): ReadonlySet<Scope> =>
  new Set(granted.includes('tasks:write') ? ['tasks:read', ...granted] : granted)

/** Throws `insufficient_scope` (RFC 6750, 3.1) if the scope is not among those of the caller. */
export function requireScope(granted: ReadonlySet<Scope>, scope: Scope): void {
  if (granted.has(scope)) return
  const challenge = `Bearer error="insufficient_scope", scope="${scope}"`
  throw new AppError('insufficient_scope', { headers: { 'www-authenticate': challenge } })
}
