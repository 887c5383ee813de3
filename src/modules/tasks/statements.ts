import { and, eq, exists, getTableColumns, notExists, or, type SQL, sql } from 'drizzle-orm'
import { type Db, parameter } from '../../db/drizzle.ts'
import { taskTombstones, typeOf, userVersions } from '../../db/tables.ts'
import type { Precondition } from '../../http/entity-tag.ts'
import type { UserId } from '../../lib/user-id.ts'
import { camelCase, columnOf, isLive, tasks } from './table.ts'
import { initialOf, isWords } from './to-columns.ts'

/**
 * The statements about one task, for the requests that are frequent: each reads or writes in one round trip. A write takes
 * the user's next version for the task (docs/decisions/0005-change-sequence.md). It locks the row of versions before the
 * task, so that two writers never deadlock, and tests the task after it has waited for the lock. No row means that nothing
 * was written, and takes no version; why not is looked up with the lock held (`writeInTurn`).
 */

const id = parameter('id', 'uuid')
const user = parameter('user', 'uuid')
const own = and(eq(tasks.id, id), eq(tasks.userId, user))
const ownTombstone = and(eq(taskTombstones.id, id), eq(taskTombstones.userId, user))

/** What every statement returns of a task: its JSON, which the database has made, and what the `ETag` says. */
const serialized = { version: tasks.version, json: tasks.json }

/** What a request says about a column. */
const columnValue = (name: string): SQL => parameter(name, typeOf(columnOf(name)))
const isCompleted = sql`${columnValue('status')} = 'completed'`

const versions = (name: keyof Precondition) => sql`${parameter(name, 'text[]')}::bigint[]`
const isWanted = and(
  sql`coalesce(${tasks.version} = any (${versions('ifMatch')}), true)`,
  sql`coalesce(${tasks.version} <> all (${versions('ifNoneMatch')}), true)`,
)

/** Only if the condition holds: a write that is refused or changes nothing takes no version. That costs 5 µs of 110. */
const takeNextVersion = (db: Db, condition?: SQL) =>
  db.$with('next_version').as(
    db
      .update(userVersions)
      .set({ lastVersion: sql`${userVersions.lastVersion} + 1` })
      // Not `returning now()`, which Citus refuses.
      .from(sql`(select now() as moment) clock`)
      .where(and(eq(userVersions.userId, user), condition))
      .returning({ lastVersion: userVersions.lastVersion, moment: sql`clock.moment`.as('moment') }),
  )

const among = (db: Db, table: typeof tasks | typeof taskTombstones, condition: SQL | undefined) =>
  db.select({ one: sql`1` }).from(table).where(condition)

export const readTask = (db: Db) =>
  db.select(serialized).from(tasks).where(and(own, isLive)).prepare('read_task')

/** Creates a task with values for these columns. No row: the user has no versions (`throwVersionless`). */
export function insertTask(db: Db, columns: string[], condition?: SQL) {
  const next = takeNextVersion(db, condition)
  const values: Record<string, SQL> = { user_id: user, version: sql`${next.lastVersion}` }
  for (const name of ['id', 'request_hash', ...columns]) values[name] = columnValue(name)
  if (columns.includes('status')) values.completed_at = sql`case when ${isCompleted} then now() end`
  // The builder wants every column of the table in the select list.
  const row = Object.values(getTableColumns(tasks)).map(
    column => values[column.name] ?? sql`${sql.param(initialOf(column), column)}`.inlineParams(),
  )
  return db
    .with(next)
    .insert(tasks)
    .select(sql`select ${sql.join(row, sql`, `)} from ${next}`)
    .returning(serialized)
    .prepare('insert_task')
}

/**
 * The same with an id that the user may have used before. No row: there is a task or a tombstone, or the user made another
 * change while it waited for the lock, and it cannot see what that change created or deleted.
 */
export const insertTaskOnce = (db: Db, columns: string[]) =>
  insertTask(
    db,
    columns,
    and(
      notExists(among(db, tasks, own)),
      notExists(among(db, taskTombstones, ownTombstone)),
      sql`${userVersions.lastVersion} = (select last_version from ${userVersions} seen where user_id = ${user})`,
    ),
  )

/** A task to create under an id that nothing has, with values for these columns. */
interface NewRow {
  id: string
  requestHash: string | null
  columns: Record<string, unknown>
}

/** Creates tasks of a user, in their order under the versions from `firstVersion` on. */
export function insertTasks(db: Db, userId: UserId, firstVersion: number, rows: NewRow[]) {
  const values = rows.map(({ id, requestHash, columns }, i) => {
    const named = Object.entries(columns).map(([name, value]) => [camelCase(name), value])
    // One after the other, as lists show them, whatever ids they have.
    const moment = sql`now() + ${i}::int * interval '1 microsecond'`
    return {
      ...Object.fromEntries(named),
      id,
      userId,
      version: firstVersion + i,
      requestHash,
      createdAt: moment,
      updatedAt: moment,
      completedAt: columns.status === 'completed' ? moment : null,
    }
  })
  return db
    .insert(tasks)
    .values(values)
    .returning({ id: tasks.id, ...serialized })
}

/** Changes these columns and no others. No row: there is no such task in that version, or nothing differs. */
export function updateTask(db: Db, columns: string[]) {
  const differences = columns
    .filter(column => !isWords(column))
    .map(column => sql`${tasks}.${sql.identifier(column)} is distinct from ${columnValue(column)}`)
  const condition = and(own, isLive, isWanted)
  const next = takeNextVersion(db, exists(among(db, tasks, and(condition, or(...differences) ?? sql`false`))))
  const changes: Record<string, SQL> = {
    updatedAt: sql`${next.moment}`,
    version: sql`${next.lastVersion}`,
  }
  for (const name of columns) changes[camelCase(name)] = columnValue(name)
  // A task that was completed before keeps its moment. Citus refuses `now()` itself within `case`.
  if (columns.includes('status'))
    changes.completedAt = sql`case when ${isCompleted} then coalesce(${tasks.completedAt}, ${next.moment}) end`
  return db
    .with(next)
    .update(tasks)
    .set(changes)
    .from(next)
    .where(condition)
    .returning(serialized)
    .prepare('update_task')
}

/** A statement for each set of columns, made when it is first needed. */
export function perColumns<Statement>(make: (columns: string[]) => Statement) {
  const made = new Map<string, Statement>()
  return (columns: string[]) => made.getOrInsertComputed(columns.join(), () => make(columns))
}
