import { and, eq, gt, inArray, isNotNull, lt, notExists, type SQL, sql } from 'drizzle-orm'
import type { Db } from '../../db/client.ts'
import { taskCounters, tasks, taskTombstones, users } from '../../db/schema.ts'
import { findAppError } from '../../errors.ts'
import { errorFields, type Log } from '../../log.ts'
import { serialized } from './rows.ts'
import { type Change, lockCounter } from './statements.ts'

/** Days that a task stays in the trash before it goes for good. */
export const trashDays = 30
/** Days that a deletion is remembered; a cursor of `/tasks/changes` that is older may be too old. */
export const tombstoneDays = 90

/** Rows that a step deletes: other requests wait neither long for its locks nor for the embedded database. */
export const stepRows = 200
const pageUsers = 100

const isTrashed = isNotNull(tasks.deletedAt)
const before = (days: number) => sql`now() - make_interval(days => ${days})`
const isOldTrash = and(isTrashed, lt(tasks.deletedAt, before(trashDays)))
const isOldTombstone = lt(taskTombstones.deletedAt, before(tombstoneDays))

/** A tombstone may be there already: an imported one of the same task. The later deletion counts. */
const lastDeletion = {
  target: [taskTombstones.id, taskTombstones.userId],
  set: { version: sql`excluded.version`, deletedAt: sql`excluded.deleted_at` },
}

/**
 * What deletes for good: one task, the trash, what is old, and what a deleted account leaves behind. Each is a short
 * transaction, or several: in steps, the number of rows does not matter.
 */
export function createErasure(db: Db, log: Pick<Log, 'error'>) {
  /** Runs steps of `stepRows` rows until one finds less; returns how many rows there were. */
  async function inSteps(step: (tx: Db) => Promise<number>, userId: string, lock?: { skipLocked: true }) {
    let total = 0
    for (let count = stepRows; count === stepRows; total += count) {
      count = await db.transaction(async tx => ((await lockCounter(tx, userId, lock)) ? step(tx) : 0))
    }
    return total
  }

  /** Deletes tasks. A tombstone of each stays, with the number with which the task left the list. */
  const bury = (userId: string, which: SQL | undefined) => async (tx: Db) => {
    const condition = and(eq(tasks.userId, userId), which)
    const { id, version, deletedAt } = tasks
    const some = tx.select({ id }).from(tasks).where(condition).orderBy(deletedAt).limit(stepRows)
    const gone = tx.$with('gone').as(
      tx
        .delete(tasks)
        .where(and(condition, inArray(id, some)))
        .returning({
          id,
          userId: tasks.userId,
          version,
          deletedAt: sql<string>`${deletedAt}`.as('deleted_at'),
        }),
    )
    const tombstones = await tx
      .with(gone)
      .insert(taskTombstones)
      .select(tx.select().from(gone))
      .onConflictDoUpdate(lastDeletion)
      .returning({ id: taskTombstones.id })
    return tombstones.length
  }

  /** Forgets deletions, and notes how far: a cursor from before that is too old. */
  const forget = (userId: string) => async (tx: Db) => {
    const condition = and(eq(taskTombstones.userId, userId), isOldTombstone)
    const { id, version, deletedAt } = taskTombstones
    const some = tx.select({ id }).from(taskTombstones).where(condition).orderBy(deletedAt).limit(stepRows)
    const gone = await tx
      .delete(taskTombstones)
      .where(and(condition, inArray(id, some)))
      .returning({ version })
    const last = Math.max(0, ...gone.map(({ version }) => version))
    await tx
      .update(taskCounters)
      .set({ prunedThrough: sql`greatest(${taskCounters.prunedThrough}, ${last})` })
      .where(eq(taskCounters.userId, userId))
    return gone.length
  }

  /** Deletes what is left of a user whose account is gone. */
  async function eraseUser(userId: string): Promise<number> {
    const hasNoAccount = notExists(db.select({ id: users.id }).from(users).where(eq(users.id, userId)))
    let total = 0
    for (const table of [tasks, taskTombstones]) {
      const condition = and(eq(table.userId, userId), hasNoAccount)
      total += await inSteps(async tx => {
        const some = tx.select({ id: table.id }).from(table).where(condition).limit(stepRows)
        const gone = await tx
          .delete(table)
          .where(and(condition, inArray(table.id, some)))
          .returning({ id: table.id })
        return gone.length
      }, userId)
    }
    await db.delete(taskCounters).where(and(eq(taskCounters.userId, userId), hasNoAccount))
    return total
  }

  /** The users who have such rows, a page at a time. */
  async function* usersWith(
    table: typeof tasks | typeof taskTombstones | typeof taskCounters,
    condition?: SQL,
  ) {
    let page: { userId: string }[] = []
    do {
      const last = page.at(-1)
      page = await db
        .selectDistinct({ userId: table.userId })
        .from(table)
        .where(and(condition, last && gt(table.userId, last.userId)))
        .orderBy(table.userId)
        .limit(pageUsers)
      yield* page
    } while (page.length === pageUsers)
  }

  /** One user after the other: what fails for one is logged, and tried again at the next turn. */
  async function forEachUser(
    users: AsyncIterable<{ userId: string }>,
    work: (userId: string) => Promise<number>,
  ) {
    let total = 0
    for await (const { userId } of users) {
      try {
        total += await work(userId)
      } catch (error) {
        // Another writer, or no database: not worth a line.
        if (findAppError(error)?.code === 'unavailable') continue
        log.error('old tasks of a user cannot be deleted', { user_id: userId, ...errorFields(error) })
      }
    }
    return total
  }

  const task: Change = {
    write: ({ id, user, ifMatch }) =>
      db.transaction(async tx => {
        const counter = await lockCounter(tx, user)
        if (!counter) return []
        const isWanted = ifMatch ? inArray(tasks.version, ifMatch.map(Number)) : undefined
        const gone = await tx
          .delete(tasks)
          .where(and(eq(tasks.id, id), eq(tasks.userId, user), isWanted))
          .returning(serialized)
        if (gone.length === 0) return []
        const tombstone = { id, userId: user, version: counter.seq + 1, deletedAt: sql`now()` }
        await tx.insert(taskTombstones).values(tombstone).onConflictDoUpdate(lastDeletion)
        await tx.update(taskCounters).set({ seq: tombstone.version }).where(eq(taskCounters.userId, user))
        return gone
      }),
    look: ({ id, user }) =>
      db
        .select({ ...serialized, differs: sql<boolean>`true` })
        .from(tasks)
        .where(and(eq(tasks.id, id), eq(tasks.userId, user))),
  }

  return {
    /** One task, from the list or from the trash. */
    task,

    /** Everything in the user's trash. No number is taken: for the feed these tasks were gone before. */
    async emptyTrash(userId: string): Promise<void> {
      await inSteps(bury(userId, isTrashed), userId)
    },

    eraseUser,

    /**
     * Deletes what was in the trash for 30 days, forgets deletions after 90, and ends the deletion of accounts that was
     * interrupted. Returns the numbers of rows. Replicas may run it at the same time: a user whose counter another
     * writer holds is left for the next turn.
     */
    async purge(): Promise<{ purged: number; forgotten: number; erased: number }> {
      const free = { skipLocked: true } as const
      const hasNoAccount = notExists(
        db.select({ id: users.id }).from(users).where(eq(users.id, taskCounters.userId)),
      )
      return {
        purged: await forEachUser(usersWith(tasks, isOldTrash), userId =>
          inSteps(bury(userId, isOldTrash), userId, free),
        ),
        forgotten: await forEachUser(usersWith(taskTombstones, isOldTombstone), userId =>
          inSteps(forget(userId), userId, free),
        ),
        erased: await forEachUser(usersWith(taskCounters, hasNoAccount), eraseUser),
      }
    },
  }
}
