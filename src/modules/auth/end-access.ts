import { and, eq, ne, type SQL, sql } from 'drizzle-orm'
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
  return {
    sessions: await endRows(tx, sessions, and(eq(sessions.userId, userId), isEnded)),
    apiTokens: kept.apiTokens ? [] : await endRows(tx, apiTokens, eq(apiTokens.userId, userId)),
  }
}

/** Deletes sessions or API tokens, and returns their ids. */
export async function endRows(
  db: Db,
  table: typeof sessions | typeof apiTokens,
  which: SQL | undefined,
): Promise<string[]> {
  const ended = await db.delete(table).where(which).returning({ id: table.id })
  return ended.map(({ id }) => id)
}

/** What an operator may do to an account: replace its password, or refuse sign-ins. */
export type AccessChange = { passwordHash: string } | 'disable'

/** Changes an account and ends the user's access. Triggers report the ended sessions to running services. */
export const changeAccess = (db: Db, userId: string, change: AccessChange) =>
  db.transaction(async tx => {
    const to = change === 'disable' ? { disabledAt: sql`coalesce(${users.disabledAt}, now())` } : change
    await tx
      .update(users)
      .set({ ...to, updatedAt: sql`now()` })
      .where(eq(users.id, userId))
    return endAccess(tx, userId)
  })
