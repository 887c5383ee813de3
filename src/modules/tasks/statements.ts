import { and, eq, exists, isNotNull, isNull, notExists, or, type SQL, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { tasks, taskTombstones, userVersions } from '../../db/tables.ts'
import { AppError } from '../../lib/errors.ts'
import { assignments, fieldValue, newTask, type SerializedTask, serialized, value } from './rows.ts'

/** The task that a statement is about; for a change, the versions that the caller accepts, null for any. */
export interface Target {
  id: string
  user: string
  ifMatch?: string[] | null
}

const id = value('id', 'uuid')
const user = value('user', 'uuid')
const own = and(eq(tasks.id, id), eq(tasks.userId, user))
const ownTombstone = and(eq(taskTombstones.id, id), eq(taskTombstones.userId, user))
const isLive = isNull(tasks.deletedAt)
const isTrashed = isNotNull(tasks.deletedAt)

const isWanted = sql`coalesce(${tasks.version} = any (${value('ifMatch', 'text[]')}::bigint[]), true)`

/** A change of one task: what it does, and how to find out why it did nothing. */
export interface Change {
  /** Returns the task as it is after the change; no row when there was nothing that could be changed. */
  write(target: Target): Promise<SerializedTask[]>
  /** The task that could be changed, whatever its version, and whether the change would make a difference to it. */
  look(target: Target): Promise<(SerializedTask & { differs: boolean })[]>
}

/**
 * The statements about one task. A write takes the next number of the user's sequence and stamps the task with it, in
 * one statement (docs/decisions/0005-change-sequence.md). It locks the counter before the task, so that two writers
 * never wait for each other, and tests the task after it has waited, as it is by then.
 */
export function createStatements(db: Db) {
  /** Only if the condition holds: a write that is refused, or changes nothing, takes no number (5 µs of 110). */
  const nextNumber = (condition?: SQL) =>
    db.$with('counter').as(
      db
        .update(userVersions)
        .set({ lastVersion: sql`${userVersions.lastVersion} + 1` })
        .where(and(eq(userVersions.userId, user), condition))
        .returning({ lastVersion: userVersions.lastVersion }),
    )

  const among = (table: typeof tasks | typeof taskTombstones, condition: SQL | undefined) =>
    db.select({ one: sql`1` }).from(table).where(condition)

  function insert(name: string, condition?: SQL) {
    const counter = nextNumber(condition)
    const row = newTask({ id, user_id: user, version: sql`${counter.lastVersion}` }, fieldValue)
    return db
      .with(counter)
      .insert(tasks)
      .select(sql`select ${row} from ${counter}`)
      .returning(serialized)
      .prepare(name)
  }

  function change(name: string, which: SQL, values: Record<string, SQL>, differs = sql`true`): Change {
    const condition = and(own, which, isWanted)
    const counter = nextNumber(exists(among(tasks, and(condition, differs))))
    const write = db
      .with(counter)
      .update(tasks)
      .set({ ...values, version: sql`${counter.lastVersion}` })
      .from(counter)
      .where(condition)
      .returning(serialized)
      .prepare(name)
    const look = db
      .select({ ...serialized, differs: sql<boolean>`${differs}` })
      .from(tasks)
      .where(and(own, which))
      .prepare(`look_${name}`)
    return { write: target => write.execute({ ...target }), look: target => look.execute({ ...target }) }
  }

  /** Changes these columns and no others: a statement for each set of them. */
  function update(columns: string[]): Change {
    // The words follow from their text.
    const differences = columns
      .filter(column => !column.endsWith('_words'))
      .map(column => sql`${tasks}.${sql.identifier(column)} is distinct from ${fieldValue(column)}`)
    const values = { ...assignments(columns, fieldValue), updatedAt: sql`now()` }
    return change(`update_task_${columns.join('_')}`, isLive, values, or(...differences) ?? sql`false`)
  }
  const updates = new Map<string, Change>()

  return {
    read: db.select(serialized).from(tasks).where(and(own, isLive)).prepare('read_task'),

    /** No row: the account is gone. */
    insert: insert('insert_task'),

    /** With an id that the user may have used before: then there is no row either, but `prior` or a `tombstone`. */
    insertOnce: insert(
      'insert_task_once',
      and(notExists(among(tasks, own)), notExists(among(taskTombstones, ownTombstone))),
    ),
    prior: db.select(serialized).from(tasks).where(own).prepare('prior_task'),
    tombstone: among(taskTombstones, ownTombstone).prepare('task_tombstone'),

    update(columns: string[]): Change {
      const key = columns.join()
      const known = updates.get(key) ?? update(columns)
      updates.set(key, known)
      return known
    },
    trash: change('trash_task', isLive, { deletedAt: sql`now()` }),
    restore: change('restore_task', isTrashed, { deletedAt: sql`null`, updatedAt: sql`now()` }),
  }
}

/**
 * Locks the user's counter, which every writer of the user's tasks does first: until the transaction ends, they stay as
 * they are. `undefined`: there is no such user; or, with `skipLocked`, another writer has it.
 */
export async function lockVersions(tx: Db, userId: string, lock: { skipLocked?: true } = {}) {
  const counters = tx.select({ lastVersion: userVersions.lastVersion }).from(userVersions)
  const [counter] = await counters.where(eq(userVersions.userId, userId)).for('no key update', lock)
  return counter
}

/**
 * Throws why a user cannot have a task: another user's is 403; none, or one in the trash, 404. The one query without the user:
 * it decides between the two, and reveals nothing else.
 */
export async function throwMissing(
  db: Db,
  userId: string,
  taskId: string,
  details: { index?: number } = {},
): Promise<never> {
  const [task] = await db.select({ userId: tasks.userId }).from(tasks).where(eq(tasks.id, taskId)).limit(1)
  const isForeign = task && task.userId !== userId
  throw new AppError(isForeign ? 'not_authorized' : 'task_not_found', details)
}
