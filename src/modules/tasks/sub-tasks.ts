import { and, eq, inArray, isNull, or, type SQL, sql } from 'drizzle-orm'
import { alias } from 'drizzle-orm/pg-core'
import type { Db } from '../../db/drizzle.ts'
import { own, taskTombstones } from '../../db/tables.ts'
import { takeVersions, writeTombstones } from '../../db/versions.ts'
import type { UserId } from '../../lib/user-id.ts'
import { isLive, isTrashed, tasks } from './table.ts'

/**
 * Changes that take the children of a task along: trash, restore and permanent deletion. The caller holds the user's
 * versions, so no child comes or goes meanwhile.
 */

const idOrChildOf = (id: string) => or(eq(tasks.id, id), eq(tasks.parentId, id))

/**
 * Sets columns of the tasks that match, each under the next version: parents before their children, in the order of their
 * ids. Returns the versions before.
 */
export function changeTasks(tx: Db, userId: UserId, which: SQL | undefined, values: Record<string, SQL>) {
  const place = sql`row_number() over (order by ${tasks.parentId} is not null, ${tasks.id}) - count(*) over ()`
  const chosen = tx.$with('chosen').as(
    tx
      .select({ id: tasks.id, before: sql<number>`${tasks.version}`.as('before'), place: place.as('place') })
      .from(tasks)
      .where(and(eq(tasks.userId, userId), which)),
  )
  const taken = tx.$with('taken').as(takeVersions(tx, userId, sql`(select count(*) from ${chosen})`))
  return tx
    .with(chosen, taken)
    .update(tasks)
    .set({ ...values, version: sql`${taken.lastVersion} + ${chosen.place}` })
    .from(chosen)
    .innerJoin(taken, sql`true`)
    .where(and(eq(tasks.id, chosen.id), eq(tasks.userId, userId)))
    .returning({ id: tasks.id, version: chosen.before })
}

/** Moves a task and its children to the trash. Prepared, because a batch may do so a hundred times. */
export const trashTask = (tx: Db, userId: UserId, id: string) =>
  changeTasks(tx, userId, and(isLive, idOrChildOf(id)), { deletedAt: sql`now()` })
    .prepare('trash_task')
    .execute()

/** Deletes a task and its children permanently, from the list or from the trash. */
export async function eraseTask(tx: Db, userId: UserId, id: string) {
  const which = and(eq(tasks.userId, userId), idOrChildOf(id))
  const erased = await tx.delete(tasks).where(which).returning({ id: tasks.id, version: tasks.version })
  const [taken] = await takeVersions(tx, userId, erased.length)
  await writeTombstones(
    tx,
    taskTombstones,
    erased.map(({ id }, i) => ({ id, userId, version: taken!.lastVersion - i })),
  )
  return erased
}

/**
 * Restores a task that is in the trash, and the children that went there together with it. A child whose parent is still
 * in the trash, gone, or by now a child itself, comes back without a parent.
 */
export function restoreTask(tx: Db, userId: UserId, id: string) {
  const parents = alias(tasks, 'parents')
  const isThere = or(isNull(parents.deletedAt), eq(parents.id, id))
  const isParent = and(eq(parents.userId, userId), isThere, isNull(parents.parentId))
  const mayBeParent = tx.select({ id: parents.id }).from(parents).where(isParent)
  const sameMoment = tx
    .select({ deletedAt: tasks.deletedAt })
    .from(tasks)
    .where(own(tasks, userId, id))
  const family = or(eq(tasks.id, id), and(eq(tasks.parentId, id), eq(tasks.deletedAt, sql`(${sameMoment})`)))
  return changeTasks(tx, userId, and(isTrashed, family), {
    deletedAt: sql`null`,
    updatedAt: sql`now()`,
    parentId: sql`case when ${inArray(tasks.parentId, mayBeParent)} then ${tasks.parentId} end`,
  })
}
