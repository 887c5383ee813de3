import { eq, type SQL, sql } from 'drizzle-orm'
import { AppError } from '../lib/errors.ts'
import type { UserId } from '../lib/user-id.ts'
import { type Db, parameter } from './drizzle.ts'
import { type Tombstones, users, userVersions } from './tables.ts'

/** Reads which changes a user has: while `lastVersion` stays, so do the user's tasks and lists. */
export function createVersionReader(db: Db) {
  const { lastVersion, forgottenVersion, userId } = userVersions
  const query = db
    .select({ lastVersion, forgottenVersion })
    .from(userVersions)
    .where(eq(userId, parameter('user', 'uuid')))
    .prepare('user_versions')

  return async (user: string) => (await query.execute({ user }))[0]
}

/**
 * Locks the user's versions, as every writer of the user's tasks and lists does first: until the transaction ends, they do
 * not change. Returns `false` when there is no such user or, with `skipLocked`, when another writer has the lock.
 */
export async function lockVersions(
  tx: Db,
  userId: string,
  lock: { skipLocked?: true } = {},
): Promise<boolean> {
  const versions = tx.select({ userId: userVersions.userId }).from(userVersions)
  const query = versions.where(eq(userVersions.userId, userId)).for('no key update', lock)
  return (await query.prepare('lock_versions').execute()).length > 0
}

/**
 * Throws why a user has no versions: `invalid_token` when the account is gone, `unavailable` when the rows are moving to
 * another server of a cluster, and cannot be seen meanwhile.
 */
export async function throwVersionless(db: Db, userId: UserId): Promise<never> {
  const [account] = await db.select({ id: users.id }).from(users).where(eq(users.id, userId))
  throw new AppError(account ? 'unavailable' : 'invalid_token')
}

/**
 * The shape of every change that is more than one statement: look, take a version, write, return what became of it. `work`
 * runs in a transaction that has locked the user's versions, so no other writer changes what the user has between its look
 * and its write. Throws as `throwVersionless` does.
 */
export function writeInTurn<T>(db: Db, userId: UserId, work: (tx: Db) => Promise<T>): Promise<T> {
  return db.transaction(async tx =>
    (await lockVersions(tx, userId)) ? work(tx) : throwVersionless(tx, userId),
  )
}

/** Takes the next versions of a user, one for each row that changes. Returns the last of them. */
export const takeVersions = (tx: Db, userId: UserId, count: number | SQL = 1) =>
  tx
    .update(userVersions)
    .set({ lastVersion: sql`${userVersions.lastVersion} + ${count}` })
    .where(eq(userVersions.userId, userId))
    .returning({ lastVersion: userVersions.lastVersion })

/** The next version of a user. */
export const takeVersion = async (tx: Db, userId: UserId) => (await takeVersions(tx, userId))[0]!.lastVersion

/** Records deletions for clients that sync. An import may have brought a tombstone of the same row; the last one counts. */
export async function writeTombstones(
  tx: Db,
  table: Tombstones,
  deleted: { id: string; userId: string; version: number }[],
): Promise<void> {
  if (deleted.length === 0) return
  await tx
    .insert(table)
    .values(deleted.map(row => ({ ...row, deletedAt: sql`now()` })))
    .onConflictDoUpdate({
      target: [table.id, table.userId],
      set: { version: sql`excluded.version`, deletedAt: sql`excluded.deleted_at` },
    })
}
