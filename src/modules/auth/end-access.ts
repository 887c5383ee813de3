import { and, eq, ne, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { apiTokens, sessions, users } from '../../db/tables.ts'

interface Kept {
  session?: string
  apiTokens?: boolean | undefined
}

/**
 * Ends the sessions and API tokens of a user, and returns their ids: their tokens stop working where `TokenCache.revoke` is
 * called with them, and elsewhere within a second. In a transaction, after the user's row was changed: a sign-in after that
 * meets the new state, and what is from before it is deleted.
 */
export async function endAccess(tx: Db, userId: string, kept: Kept = {}) {
  const isEnded = kept.session === undefined ? undefined : ne(sessions.id, kept.session)
  const ended = await tx
    .delete(sessions)
    .where(and(eq(sessions.userId, userId), isEnded))
    .returning({ id: sessions.id })
  const tokens = kept.apiTokens
    ? []
    : await tx.delete(apiTokens).where(eq(apiTokens.userId, userId)).returning({ id: apiTokens.id })
  return { sessions: ended.map(({ id }) => id), apiTokens: tokens.map(({ id }) => id) }
}

/** What an operator may do to an account: give it another password, or refuse sign-ins to it. */
export type AccessChange = { passwordHash: string } | 'disable'

/** Changes an account and ends the user's access. Triggers tell running services. */
export const changeAccess = (db: Db, userId: string, change: AccessChange) =>
  db.transaction(async tx => {
    const to = change === 'disable' ? { disabledAt: sql`coalesce(${users.disabledAt}, now())` } : change
    await tx
      .update(users)
      .set({ ...to, updatedAt: sql`now()` })
      .where(eq(users.id, userId))
    return endAccess(tx, userId)
  })
