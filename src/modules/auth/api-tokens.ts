import { and, count, desc, eq, gt, isNull, or, placeholder, type SQL, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { apiTokens, own, users } from '../../db/tables.ts'
import { withoutTimeBudget } from '../../db/time-budget.ts'
import type { Client } from '../../http/client.ts'
import type { Caller } from '../../http/require-user.ts'
import { isWellFormed, newApiToken } from '../../lib/api-token.ts'
import { AppError } from '../../lib/errors.ts'
import { parseInstant } from '../../lib/instant.ts'
import { scopesOf, tokenScopes } from '../../lib/scope.ts'
import { sha256 } from '../../lib/sha256.ts'
import type { UserId } from '../../lib/user-id.ts'
import { isUuid } from '../../lib/uuid.ts'
import type { WithPassword } from './current-password.ts'
import { endRows } from './end-access.ts'
import type { ApiTokenCreate } from './model.ts'
import type { TokenCache } from './token-cache.ts'

/** How many a user may have that have not expired. */
const apiTokensMax = 50
const defaultDays = 90
/** How much of a token is kept, and shown in the list. */
const prefixLength = 12

/** Whether a token has not expired. */
export const isUnexpired = or(isNull(apiTokens.expiresAt), gt(apiTokens.expiresAt, sql`now()`))

/** What the user chooses about a token. */
export type ApiTokenInput = Omit<ApiTokenCreate, 'current_password'>

export type ApiTokens = ReturnType<typeof createApiTokens>

interface Parts {
  db: Db
  tokenCache: TokenCache
  withPassword: WithPassword
}

/** API tokens from their creation to their end, and the callers that they stand for. */
export function createApiTokens({ db, tokenCache, withPassword }: Parts) {
  // Prepared, because every request may need it.
  const liveToken = db
    .select({
      id: apiTokens.id,
      userId: apiTokens.userId,
      scopes: apiTokens.scopes,
      leftMs: sql<number | null>`(date_part('epoch', ${apiTokens.expiresAt} - now()) * 1000)::bigint`,
      isUsageStale: sql<boolean>`coalesce(${apiTokens.lastUsedAt} < now() - interval '1 minute', true)`,
    })
    .from(apiTokens)
    .where(and(eq(apiTokens.tokenHash, placeholder('hash')), isUnexpired))
    .prepare('live_api_token')

  /** Ends tokens of a user, which stop working here at once and on other replicas within a second. */
  async function endTokens(which: SQL | undefined): Promise<string[]> {
    const ids = await endRows(db, apiTokens, which)
    tokenCache.revoke(ids)
    return ids
  }

  return {
    /**
     * Looks a token up in the database; called only when `tokenCache` does not know that it is alive. Throws
     * `invalid_token`, for a typing mistake without the database.
     */
    async authenticate(token: string): Promise<Caller> {
      if (!isWellFormed(token)) throw new AppError('invalid_token')
      const checkedAt = performance.now()
      const [found] = await liveToken.execute({ hash: sha256(token) })
      if (!found) throw new AppError('invalid_token')
      const { id, scopes, leftMs, isUsageStale } = found
      const userId = found.userId as UserId
      // For display, so it is written at most once a minute, and no request waits for it or fails with it.
      if (isUsageStale) {
        const note = db
          .update(apiTokens)
          .set({ lastUsedAt: sql`now()` })
          .where(own(apiTokens, userId, id))
        void withoutTimeBudget(() => note.catch(() => {}))
      }
      const caller = { id: userId, sessionId: id, scopes: scopesOf(scopes) }
      tokenCache.remember(token, caller, checkedAt, leftMs ?? Number.POSITIVE_INFINITY)
      return caller
    },

    /** Throws what `withPassword` and `createApiToken` throw. */
    create(userId: UserId, { current_password, ...input }: ApiTokenCreate, client: Client) {
      return withPassword(userId, current_password, client, hash => createApiToken(db, userId, input, hash))
    },

    /** The user's tokens, newest first. */
    list: (userId: UserId) =>
      db
        .select({ ...shownAtCreation, prefix: apiTokens.prefix, last_used_at: apiTokens.lastUsedAt })
        .from(apiTokens)
        .where(and(eq(apiTokens.userId, userId), isUnexpired))
        .orderBy(desc(apiTokens.id)),

    /** Ends one token of the user. Throws `token_not_found`. */
    async end(userId: UserId, id: string): Promise<void> {
      const ended = isUuid(id) ? await endTokens(own(apiTokens, userId, id)) : []
      if (ended.length === 0) throw new AppError('token_not_found')
    },

    /** Ends a token by its text, if there is one. */
    async revoke(token: string): Promise<void> {
      await endTokens(eq(apiTokens.tokenHash, sha256(token)))
    },
  }
}

/**
 * Makes a token for a user. Returns `undefined` when the account is disabled, or has another password hash by now than the
 * one that was checked. Throws `too_many_tokens`.
 */
export async function createApiToken(
  db: Db,
  userId: string,
  { name, scopes, expires_at: expiresAt = inDays(defaultDays) }: ApiTokenInput,
  passwordHash?: string,
) {
  const token = newApiToken()
  return db.transaction(async tx => {
    // The lock makes creations wait for each other, and for a change of the password that is under way.
    const isChecked = passwordHash === undefined ? undefined : eq(users.passwordHash, passwordHash)
    const [user] = await tx
      .select({ id: users.id })
      .from(users)
      .where(and(eq(users.id, userId), isChecked, isNull(users.disabledAt)))
      .for('no key update')
    if (!user) return undefined
    const mine = and(eq(apiTokens.userId, userId), isUnexpired)
    const [found] = await tx.select({ count: count() }).from(apiTokens).where(mine)
    if (found!.count >= apiTokensMax) throw new AppError('too_many_tokens')
    const values = {
      id: Bun.randomUUIDv7(),
      userId,
      name,
      scopes: tokenScopes.filter(scope => scopes.includes(scope)),
      prefix: token.slice(0, prefixLength),
      tokenHash: sha256(token),
      // PostgreSQL refuses some offsets that RFC 3339 allows, and would round what `instant.ts` cuts off.
      expiresAt: expiresAt && parseInstant(expiresAt),
    }
    const [made] = await tx.insert(apiTokens).values(values).returning(shownAtCreation)
    return { ...made!, token }
  })
}

const shownAtCreation = {
  id: apiTokens.id,
  name: apiTokens.name,
  scopes: apiTokens.scopes,
  expires_at: apiTokens.expiresAt,
  created_at: apiTokens.createdAt,
}

/** The moment this many days from now. */
export const inDays = (days: number) => new Date(Date.now() + days * 24 * 60 * 60 * 1000).toISOString()
