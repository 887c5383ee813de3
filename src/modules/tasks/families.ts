import { and, eq, inArray, isNotNull, isNull, or, type SQL, sql } from 'drizzle-orm'
import { alias } from 'drizzle-orm/pg-core'
import type { Db } from '../../db/drizzle.ts'
import { taskTombstones } from '../../db/tables.ts'
import { type Versions, writeInTurn, writeTombstones } from '../../db/versions.ts'
import type { UserId } from '../../lib/user-id.ts'
import { serialized } from './rows.ts'
import type { Change, Target } from './statements.ts'
import { tasks } from './table.ts'

/**
 * Changes that take the children of a task along: trash, restore and permanent deletion. Each is a short transaction that
 * holds the user's versions, so no child comes or goes meanwhile.
 */

const isLive = isNull(tasks.deletedAt)
const isTrashed = isNotNull(tasks.deletedAt)
const idOrChildOf = (ids: string[]) => or(inArray(tasks.id, ids), inArray(tasks.parentId, ids))

/** Sets columns of the tasks that match, each under the next version, parents before their children. Returns their ids. */
export async function changeTasks(
  tx: Db,
  versions: Versions,
  userId: UserId,
  which: SQL | undefined,
  values: Record<string, SQL>,
): Promise<string[]> {
  const place = sql`row_number() over (order by ${tasks.parentId} is not null, ${tasks.version})`
  const numbered = tx.$with('numbered').as(
    tx
      .select({ id: tasks.id, next: sql`${versions.lastVersion}::bigint + ${place}`.as('next') })
      .from(tasks)
      .where(and(eq(tasks.userId, userId), which)),
  )
  const changed = await tx
    .with(numbered)
    .update(tasks)
    .set({ ...values, version: sql`${numbered.next}` })
    .from(numbered)
    .where(and(eq(tasks.id, numbered.id), eq(tasks.userId, userId)))
    .returning({ id: tasks.id })
  versions.lastVersion += changed.length
  return changed.map(({ id }) => id)
}

/** Moves these tasks and their children to the trash. */
export const trashTasks = (tx: Db, versions: Versions, userId: UserId, ids: string[]) =>
  changeTasks(tx, versions, userId, and(isLive, idOrChildOf(ids)), { deletedAt: sql`now()` })

/** Deletes these tasks and their children permanently, from the list or from the trash. */
async function eraseTasks(tx: Db, versions: Versions, userId: UserId, ids: string[]) {
  const which = and(eq(tasks.userId, userId), idOrChildOf(ids))
  const erased = await tx
    .delete(tasks)
    .where(which)
    .returning({ id: tasks.id, ...serialized })
  await writeTombstones(
    tx,
    taskTombstones,
    erased.map(({ id }) => ({ id, userId, version: ++versions.lastVersion })),
  )
}

/**
 * Restores a task, and the children that went to the trash together with it. A child whose parent is still in the trash,
 * gone, or by now a child itself, comes back without a parent.
 */
function restoreTask(tx: Db, versions: Versions, userId: UserId, id: string) {
  const parents = alias(tasks, 'parents')
  const isParent = and(eq(parents.userId, userId), isNull(parents.deletedAt), isNull(parents.parentId))
  const mayBeParent = tx.select({ id: parents.id }).from(parents).where(isParent)
  const sameMoment = tx
    .select({ deletedAt: tasks.deletedAt })
    .from(tasks)
    .where(and(eq(tasks.id, id), eq(tasks.userId, userId)))
  const family = or(eq(tasks.id, id), and(eq(tasks.parentId, id), eq(tasks.deletedAt, sql`(${sameMoment})`)))
  return changeTasks(tx, versions, userId, and(isTrashed, family), {
    deletedAt: sql`null`,
    updatedAt: sql`now()`,
    parentId: sql`case when ${tasks.parentId} = ${id}::uuid or ${inArray(tasks.parentId, mayBeParent)} then ${tasks.parentId} end`,
  })
}

/** The changes of one task by a client. */
export function createFamilyChanges(db: Db) {
  type Work = (tx: Db, versions: Versions, user: UserId, id: string) => Promise<unknown>

  function change(which: SQL | undefined, work: Work): Change {
    const find = (on: Db, { id, user }: Target, isWanted?: SQL) =>
      on
        .select({ ...serialized, differs: sql<boolean>`true` })
        .from(tasks)
        .where(and(eq(tasks.id, id), eq(tasks.userId, user), which, isWanted))
    return {
      write: target =>
        writeInTurn(db, target.user, async (tx, versions) => {
          const { id, user, ifMatch } = target
          const isWanted = ifMatch ? inArray(tasks.version, ifMatch.map(Number)) : undefined
          const found = await find(tx, target, isWanted)
          if (found.length > 0) await work(tx, versions, user, id)
          return found
        }),
      look: target => find(db, target),
    }
  }

  return {
    trash: change(isLive, (tx, versions, user, id) => trashTasks(tx, versions, user, [id])),
    restore: change(isTrashed, restoreTask),
    erase: change(undefined, (tx, versions, user, id) => eraseTasks(tx, versions, user, [id])),
  }
}
