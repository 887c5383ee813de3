import { and, eq, exists, inArray, isNotNull, isNull, notExists, or, type SQL, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { taskTombstones, userVersions } from '../../db/tables.ts'
import { AppError } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import { assignments, columnValue, newTask, type SerializedTask, serialized, value } from './rows.ts'
import { tasks } from './table.ts'

/** The task that a statement is about; for a change, the versions that the caller accepts, null for any. */
export interface Target {
  id: string
  user: UserId
  ifMatch?: string[] | null
}

const id = value('id', 'uuid')
const user = value('user', 'uuid')
const own = and(eq(tasks.id, id), eq(tasks.userId, user))
const ownTombstone = and(eq(taskTombstones.id, id), eq(taskTombstones.userId, user))
const isLive = isNull(tasks.deletedAt)
const isTrashed = isNotNull(tasks.deletedAt)

const requestHash = value('request_hash', 'text')

const isWanted = sql`coalesce(${tasks.version} = any (${value('ifMatch', 'text[]')}::bigint[]), true)`

/** A change of one task, and the query that tells why it changed nothing. */
export interface Change {
  /** Returns the task after the change; no row when there was none to change. */
  write(target: Target): Promise<SerializedTask[]>
  /** The task that could be changed, whatever its version, and whether the change would make a difference. */
  look(target: Target): Promise<(SerializedTask & { differs: boolean })[]>
}

export type Statements = ReturnType<typeof createStatements>

/**
 * The statements about one task. A write takes the user's next version for the task, in one statement
 * (docs/decisions/0005-change-sequence.md). It locks the row of versions before the task, so that two writers never
 * deadlock, and tests the task after it has waited for the lock.
 */
export function createStatements(db: Db) {
  /** Only if the condition holds: a write that is refused or changes nothing takes no version. That costs 5 µs of 110. */
  const takeNextVersion = (condition?: SQL) =>
    db.$with('next_version').as(
      db
        .update(userVersions)
        .set({ lastVersion: sql`${userVersions.lastVersion} + 1` })
        // Not `returning now()`, which Citus refuses.
        .from(sql`(select now() as moment) clock`)
        .where(and(eq(userVersions.userId, user), condition))
        .returning({ lastVersion: userVersions.lastVersion, moment: sql`clock.moment`.as('moment') }),
    )

  const among = (table: typeof tasks | typeof taskTombstones, condition: SQL | undefined) =>
    db.select({ one: sql`1` }).from(table).where(condition)

  function insert(name: string, given: { request_hash?: SQL } = {}, condition?: SQL) {
    const next = takeNextVersion(condition)
    const row = newTask({ ...given, id, user_id: user, version: sql`${next.lastVersion}` }, columnValue)
    return db
      .with(next)
      .insert(tasks)
      .select(sql`select ${row} from ${next}`)
      .returning(serialized)
      .prepare(name)
  }

  /** Changes these columns and no others: there is a statement for each set of columns. */
  function update(columns: string[]): Change {
    // The words follow from their text.
    const differences = columns
      .filter(column => !column.endsWith('_words'))
      .map(column => sql`${tasks}.${sql.identifier(column)} is distinct from ${columnValue(column)}`)
    const differs = or(...differences) ?? sql`false`
    const condition = and(own, isLive, isWanted)
    const next = takeNextVersion(exists(among(tasks, and(condition, differs))))
    const name = `update_task_${columns.join('_')}`
    const write = db
      .with(next)
      .update(tasks)
      .set({
        ...assignments(columns, columnValue, sql`${next.moment}`),
        updatedAt: sql`${next.moment}`,
        version: sql`${next.lastVersion}`,
      })
      .from(next)
      .where(condition)
      .returning(serialized)
      .prepare(name)
    const look = db
      .select({ ...serialized, differs: sql<boolean>`${differs}` })
      .from(tasks)
      .where(and(own, isLive))
      .prepare(`look_${name}`)
    return { write: target => write.execute({ ...target }), look: target => look.execute({ ...target }) }
  }
  const updates = new Map<string, Change>()

  return {
    read: db.select(serialized).from(tasks).where(and(own, isLive)).prepare('read_task'),

    /** No row: the account is gone. */
    insert: insert('insert_task'),

    /**
     * With an id that the user may have used before: then it returns no row, and there is a `prior` or a `tombstone`. Nor
     * does it if the user made another change while it waited for the lock: what that change created or deleted, it cannot see.
     */
    insertOnce: insert(
      'insert_task_once',
      { request_hash: requestHash },
      and(
        notExists(among(tasks, own)),
        notExists(among(taskTombstones, ownTombstone)),
        sql`${userVersions.lastVersion} = (select last_version from ${userVersions} seen where user_id = ${user})`,
      ),
    ),
    /** A task that was created without a key accepts any request. */
    prior: db
      .select({
        ...serialized,
        isTrashed: sql<boolean>`${isTrashed}`,
        isRepeat: sql<boolean>`coalesce(${tasks.requestHash} = ${requestHash}, true)`,
      })
      .from(tasks)
      .where(own)
      .prepare('prior_task'),
    tombstone: among(taskTombstones, ownTombstone).prepare('task_tombstone'),

    update(columns: string[]): Change {
      const key = columns.join()
      const known = updates.get(key) ?? update(columns)
      updates.set(key, known)
      return known
    },
  }
}

/** Throws why a user cannot have a task: another user's is 403; none, or one in the trash, 404. */
export async function throwMissing(db: Db, userId: UserId, taskId: string): Promise<never> {
  const foreign = await foreignTasks(db, userId, [taskId])
  throw new AppError(foreign.size > 0 ? 'not_authorized' : 'task_not_found')
}

/**
 * Those of these tasks that only other users have: two users may have chosen one id. The one query without the user: it
 * decides between 403 and 404 and reveals nothing else.
 */
export async function foreignTasks(db: Db, userId: UserId, ids: string[]): Promise<Set<string>> {
  const isOwn = sql<boolean>`bool_or(${tasks.userId} = ${userId}::uuid)`
  const found = await db
    .select({ id: tasks.id, isOwn })
    .from(tasks)
    .where(inArray(tasks.id, ids))
    .groupBy(tasks.id)
  return new Set(found.flatMap(({ id, isOwn }) => (isOwn ? [] : id)))
}
