import { and, eq, gt, inArray, isNotNull, lt, notExists, type SQL, sql } from 'drizzle-orm'
import type { AnyPgColumn } from 'drizzle-orm/pg-core'
import type { Db } from '../../db/drizzle.ts'
import { tasks, taskTombstones, users, userVersions } from '../../db/tables.ts'
import { findAppError } from '../../lib/errors.ts'
import { errorFields, type Log } from '../../telemetry/log.ts'
import { serialized } from './rows.ts'
import { type Change, lockVersions } from './statements.ts'

/** Days that a task stays in the trash before it goes for good. */
export const trashDays = 30
/** Days that a deletion is remembered; a cursor of `/tasks/changes` that is older may be too old. */
export const tombstoneDays = 90

/** Rows that a step deletes: other requests wait neither long for its locks nor for the embedded database. */
export const stepRows = 200
const usersAtOnce = 100

const isTrashed = isNotNull(tasks.deletedAt)
const daysAgo = (days: number) => sql`now() - make_interval(days => ${days})`
const isOldTrash = lt(tasks.deletedAt, daysAgo(trashDays))
const isOldTombstone = lt(taskTombstones.deletedAt, daysAgo(tombstoneDays))

type Lock = { skipLocked?: true }

/** Deletes at most `stepRows` rows, in an order that an index has: else each step would read and sort all of them. */
async function deleteSome(
  tx: Db,
  table: typeof tasks | typeof taskTombstones,
  order: AnyPgColumn,
  which: SQL | undefined,
) {
  const { id, userId, version, deletedAt } = table
  const some = tx.select({ id }).from(table).where(which).orderBy(order).limit(stepRows)
  // The condition once more: a row may have changed since it was chosen. An array is looked up by the key; of a subquery
  // the planner may make a join with all of the table.
  return tx
    .delete(table)
    .where(and(which, sql`${id} = any (array(${some}))`))
    .returning({ id, userId, version, deletedAt })
}

/** Notes deletions for clients that sync. There may be an imported one of the same task; the last one counts. */
async function bury(
  tx: Db,
  gone: { id: string; userId: string; version: number; deletedAt?: string | null }[],
) {
  if (gone.length === 0) return
  await tx
    .insert(taskTombstones)
    .values(gone.map(row => ({ ...row, deletedAt: row.deletedAt ?? sql`now()` })))
    .onConflictDoUpdate({
      target: [taskTombstones.id, taskTombstones.userId],
      set: { version: sql`excluded.version`, deletedAt: sql`excluded.deleted_at` },
    })
}

/** Runs steps, each a transaction that holds the user's counter, until one finds less to do than it may. */
async function inSteps(db: Db, userId: string, lock: Lock, step: (tx: Db) => Promise<number>) {
  let total = 0
  for (let count = stepRows; count === stepRows; total += count) {
    count = await db.transaction(async tx => ((await lockVersions(tx, userId, lock)) ? step(tx) : 0))
  }
  return total
}

/** Deletes trash for good. No number is taken: for the feed these tasks were gone before, and keep their last one. */
function emptyTrash(db: Db, userId: string, which: SQL, lock: Lock = {}) {
  return inSteps(db, userId, lock, async tx => {
    const gone = await deleteSome(tx, tasks, tasks.deletedAt, and(eq(tasks.userId, userId), which))
    await bury(tx, gone)
    return gone.length
  })
}

/** Forgets old deletions, and notes how far: cursors from before that are too old. */
function forgetDeletions(db: Db, userId: string) {
  return inSteps(db, userId, { skipLocked: true }, async tx => {
    const { version, userId: owner } = taskTombstones
    const gone = await deleteSome(tx, taskTombstones, version, and(eq(owner, userId), isOldTombstone))
    const last = Math.max(0, ...gone.map(({ version }) => version))
    await tx
      .update(userVersions)
      .set({ forgottenVersion: sql`greatest(${userVersions.forgottenVersion}, ${last})` })
      .where(eq(userVersions.userId, userId))
    return gone.length
  })
}

/** Deletes everything that a user without an account has left. Interrupted, it can be called again. */
export async function eraseUser(db: Db, userId: string): Promise<number> {
  const [account] = await db.select({ id: users.id }).from(users).where(eq(users.id, userId))
  if (account) return 0
  let total = 0
  for (const table of [tasks, taskTombstones]) {
    const which = eq(table.userId, userId)
    const step = async (tx: Db) => (await deleteSome(tx, table, table.version, which)).length
    total += await inSteps(db, userId, {}, step)
  }
  await db.delete(userVersions).where(eq(userVersions.userId, userId))
  return total
}

type OwnedTable = typeof tasks | typeof taskTombstones | typeof userVersions

const hasNoAccount = (db: Db) =>
  notExists(db.select({ id: users.id }).from(users).where(eq(users.id, userVersions.userId)))

/** What deletes for good: one task, the trash, and by itself what is old. */
export function createErasure(db: Db, log: Pick<Log, 'error'>) {
  /** For each user who has such rows. What fails for one is logged, and the others have their turn. */
  async function forEachUser(table: OwnedTable, which: SQL, work: (userId: string) => Promise<number>) {
    let total = 0
    let page: { userId: string }[] = []
    do {
      const last = page.at(-1)
      page = await db
        .selectDistinct({ userId: table.userId })
        .from(table)
        .where(and(which, last && gt(table.userId, last.userId)))
        .orderBy(table.userId)
        .limit(usersAtOnce)
      for (const { userId } of page) total += await work(userId).catch(error => report(error, userId))
    } while (page.length === usersAtOnce)
    return total
  }

  function report(error: unknown, userId: string): number {
    // No database, or a lock that takes long: no reason for a line.
    if (findAppError(error)?.code !== 'unavailable')
      log.error('the old tasks of a user cannot be deleted', { user_id: userId, ...errorFields(error) })
    return 0
  }

  return {
    /** One task, from the list or from the trash, with the next number. */
    task: {
      write: ({ id, user, ifMatch }) =>
        db.transaction(async tx => {
          const counter = await lockVersions(tx, user)
          const isWanted = ifMatch ? inArray(tasks.version, ifMatch.map(Number)) : undefined
          const which = and(eq(tasks.id, id), eq(tasks.userId, user), isWanted)
          const gone = await tx.delete(tasks).where(which).returning(serialized)
          if (!counter || gone.length === 0) return []
          const version = counter.lastVersion + 1
          await bury(tx, [{ id, userId: user, version }])
          await tx.update(userVersions).set({ lastVersion: version }).where(eq(userVersions.userId, user))
          return gone
        }),
      look: ({ id, user }) =>
        db
          .select({ ...serialized, differs: sql<boolean>`true` })
          .from(tasks)
          .where(and(eq(tasks.id, id), eq(tasks.userId, user))),
    } satisfies Change,

    /** Everything in the user's trash. */
    async emptyTrash(userId: string): Promise<void> {
      await emptyTrash(db, userId, isTrashed)
    },

    /**
     * Empties the trash of what was there for 30 days, forgets deletions after 90, and ends deletions of accounts that
     * were interrupted. Returns the numbers of rows. Replicas may do it at the same time: a user whose counter is locked
     * has the next turn.
     */
    async purge(): Promise<{ purged: number; forgotten: number; erased: number }> {
      return {
        purged: await forEachUser(tasks, isOldTrash, id =>
          emptyTrash(db, id, isOldTrash, { skipLocked: true }),
        ),
        forgotten: await forEachUser(taskTombstones, isOldTombstone, id => forgetDeletions(db, id)),
        erased: await forEachUser(userVersions, hasNoAccount(db), id => eraseUser(db, id)),
      }
    },
  }
}
