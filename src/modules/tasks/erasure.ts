import { and, eq, lt, notExists, type SQL, sql } from 'drizzle-orm'
import { type AnyPgColumn, except } from 'drizzle-orm/pg-core'
import type { Db } from '../../db/drizzle.ts'
import { seesTables } from '../../db/migrator.ts'
import { isOutage } from '../../db/pg-error.ts'
import { listTombstones, type Tombstones, taskTombstones, users, userVersions } from '../../db/tables.ts'
import { renewTimeBudget } from '../../db/time-budget.ts'
import { lockVersions, writeTombstones } from '../../db/versions.ts'
import type { UserId } from '../../lib/user-id.ts'
import { errorFields, type Log } from '../../telemetry/log.ts'
import { isTrashed, tasks } from './table.ts'

/** Days that a task stays in the trash before it is deleted permanently. */
const trashDays = 30
/** Days that a deletion is remembered; a cursor of `/tasks/changes` that is older may be too old. */
const tombstoneDays = 90

/** Rows that a step deletes: so few that other requests hardly wait for its locks or for the embedded database. */
const stepRows = 200

const daysAgo = (days: number) => sql`now() - make_interval(days => ${days})`
const isOldTrash = lt(tasks.deletedAt, daysAgo(trashDays))
const isOldTombstone = ({ deletedAt }: Tombstones) => lt(deletedAt, daysAgo(tombstoneDays))

/** Whether an account that is not found is deleted: row-level security hides accounts, and so does another program's table. */
async function seesAccounts(db: Db): Promise<boolean> {
  const isSo = sql<boolean>`${sql.raw(seesTables)} and not row_security_active('users')`
  const [row] = await db.select({ isSo }).from(sql`(select) nothing`)
  return row!.isSo
}

/** Whether there is no account of this id. */
const isGone = (db: Db, id: string) =>
  notExists(db.select({ id: users.id }).from(users).where(eq(users.id, id)))

type Lock = { skipLocked?: true }

/** Deletes at most `stepRows` rows, in the order of an index: otherwise each step would read and sort all of them. */
async function deleteSome(
  tx: Db,
  table: typeof tasks | Tombstones,
  order: AnyPgColumn,
  which: SQL | undefined,
) {
  const { id, userId, version } = table
  const some = tx.select({ id }).from(table).where(which).orderBy(order).limit(stepRows)
  // The condition is repeated because a row may have changed since it was chosen. An array is looked up in the primary
  // key; a subquery the planner may turn into a join with the whole table.
  return tx
    .delete(table)
    .where(and(which, sql`${id} = any (array(${some}))`))
    .returning({ id, userId, version })
}

/** Repeats a step, each time in a transaction that locks the user's versions, until one deletes fewer rows than it may. */
async function inSteps(db: Db, userId: string, lock: Lock, step: (tx: Db) => Promise<number>) {
  let count: number
  do {
    count = await db.transaction(async tx => ((await lockVersions(tx, userId, lock)) ? step(tx) : 0))
    renewTimeBudget()
  } while (count === stepRows)
}

/** Deletes trash permanently. No version is taken: in the feed these tasks are deleted already, under their last version. */
function emptyTrash(db: Db, userId: string, which: SQL, lock: Lock = {}) {
  return inSteps(db, userId, lock, async tx => {
    const deleted = await deleteSome(tx, tasks, tasks.deletedAt, and(eq(tasks.userId, userId), which))
    await writeTombstones(tx, taskTombstones, deleted)
    return deleted.length
  })
}

/** Forgets old deletions and records up to which version: cursors before it are too old. */
function forgetDeletions(db: Db, tombstones: Tombstones, userId: string) {
  return inSteps(db, userId, { skipLocked: true }, async tx => {
    const { version, userId: owner } = tombstones
    const which = and(eq(owner, userId), isOldTombstone(tombstones))
    const forgotten = await deleteSome(tx, tombstones, version, which)
    const last = Math.max(0, ...forgotten.map(({ version }) => version))
    await tx
      .update(userVersions)
      .set({ forgottenVersion: sql`greatest(${userVersions.forgottenVersion}, ${last})` })
      .where(eq(userVersions.userId, userId))
    return forgotten.length
  })
}

/**
 * Deletes what remains of a user whose account is deleted. When it was interrupted, it can be called again. An account that
 * comes back meanwhile, by an import, keeps what it has then. Without effect where accounts cannot be seen.
 */
export async function eraseUser(db: Db, userId: string): Promise<void> {
  if (!(await seesAccounts(db))) return
  for (const table of [tasks, taskTombstones, listTombstones]) {
    const which = and(eq(table.userId, userId), isGone(db, userId))
    await inSteps(db, userId, {}, async tx => (await deleteSome(tx, table, table.version, which)).length)
  }
  // The lists go along, at most 500.
  await db.delete(userVersions).where(and(eq(userVersions.userId, userId), isGone(db, userId)))
}

/** The users who have such rows. */
const usersWith = (db: Db, table: typeof tasks | Tombstones, which: SQL) =>
  db.selectDistinct({ userId: table.userId }).from(table).where(which)

/** The users whose account is gone, and whose rows are not. Not by a join, which Citus refuses: `users` is not distributed. */
const usersWithoutAccount = (db: Db) =>
  except(
    db.select({ userId: userVersions.userId }).from(userVersions),
    db.select({ userId: users.id }).from(users),
  )

/** Permanent deletion of the trash, and periodically of what is old. */
export function createErasure(db: Db, log: Pick<Log, 'error'>) {
  /** A failure is logged and does not stop the others. */
  async function forEachUser(
    found: PromiseLike<{ userId: string }[]>,
    work: (userId: string) => Promise<void>,
  ) {
    for (const { userId } of await found) await work(userId).catch(error => report(error, userId))
  }

  function report(error: unknown, userId: string): void {
    // The database is away or a lock is held for long: the next purge tries again.
    if (!isOutage(error))
      log.error('the old tasks of a user cannot be deleted', { user_id: userId, ...errorFields(error) })
  }

  return {
    /** Everything in the user's trash. */
    emptyTrash: (userId: UserId): Promise<void> => emptyTrash(db, userId, isTrashed),

    /**
     * Deletes what was in the trash for 30 days, forgets deletions after 90, and completes interrupted deletions of
     * accounts. Replicas may run it at the same time: a user whose versions are locked is left to the next purge.
     */
    async purge(): Promise<void> {
      const withOldTrash = usersWith(db, tasks, isOldTrash)
      await forEachUser(withOldTrash, id => emptyTrash(db, id, isOldTrash, { skipLocked: true }))
      for (const tombstones of [taskTombstones, listTombstones]) {
        const withOldTombstones = usersWith(db, tombstones, isOldTombstone(tombstones))
        await forEachUser(withOldTombstones, id => forgetDeletions(db, tombstones, id))
      }
      if (await seesAccounts(db)) return forEachUser(usersWithoutAccount(db), id => eraseUser(db, id))
      log.error('deleted accounts cannot be told from hidden ones: todo-api doctor says why')
    },
  }
}
