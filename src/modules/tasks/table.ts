import { getTableColumns, isNotNull, isNull, sql } from 'drizzle-orm'
import { foreignKey, index, type PgColumn, pgTable, primaryKey, text, uniqueIndex } from 'drizzle-orm/pg-core'
import { belongsTo, bytewiseText, instant, userVersions } from '../../db/tables.ts'
import { lists } from '../lists/table.ts'
import { type FieldName, fields } from './fields.ts'

/** `due_at` as `dueAt`: Drizzle's name of a column. */
type CamelCase<Name extends string> = Name extends `${infer First}_${infer Rest}`
  ? `${First}${Capitalize<CamelCase<Rest>>}`
  : Name
export const camelCase = (name: string) => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())

const fieldColumns = Object.fromEntries(
  Object.entries(fields).map(([name, { column }]) => [camelCase(name), column]),
) as { [Name in FieldName as CamelCase<Name>]: (typeof fields)[Name]['column'] }

/** How many children a task may have. */
export const childrenMax = 200

/** Live tasks and those in the trash (`deleted_at`). */
export const tasks = pgTable(
  'tasks',
  {
    ...fieldColumns,
    /** What a search looks at: the words of both texts as `tokenize` writes them. */
    titleWords: bytewiseText('title_words').notNull().default(''),
    descriptionWords: bytewiseText('description_words').notNull().default(''),
    deletedAt: instant('deleted_at'),
    /** Of a task that was created with an `Idempotency-Key`: a hash of what the request said. */
    requestHash: text('request_hash'),
    /** The task as it is sent: `tasksJson` writes it. */
    json: text('json').notNull().default(''),
  },
  tasks => [
    // The user is part of the key, so that the table can be split by user over several servers.
    primaryKey({ name: 'tasks_pkey', columns: [tasks.id, tasks.userId] }),
    belongsTo(userVersions.userId, 'tasks_user_fk', tasks.userId),
    // No action, so that no task changes without a version: the service moves the tasks of a list first.
    foreignKey({
      name: 'tasks_list_fk',
      columns: [tasks.listId, tasks.userId],
      foreignColumns: [lists.id, lists.userId],
    }),
    // Every index slows every write, so only three besides the key cover all tasks (docs/decisions/0006-lists.md). This one
    // has the default order of lists. Ascending, because PostgreSQL scans an index backwards as fast, and `.desc()` would
    // mean NULLS LAST, which our ORDER BY does not have.
    index('tasks_created').on(tasks.userId, tasks.createdAt, tasks.id).where(sql`${tasks.deletedAt} is null`),
    // The change feed; and no two tasks of a user have one version.
    uniqueIndex('tasks_feed').on(tasks.userId, tasks.version),
    // The trash of a user. The purge scans it for users with old tasks.
    index('tasks_trash')
      .on(tasks.userId, tasks.deletedAt, tasks.id)
      .where(sql`${tasks.deletedAt} is not null`),
    // These two have only tasks with a list, and with a parent. With the trash: its tasks leave a deleted list, too.
    index('tasks_list')
      .on(tasks.userId, tasks.listId, tasks.createdAt, tasks.id)
      .where(sql`${tasks.listId} is not null`),
    index('tasks_children').on(tasks.userId, tasks.parentId).where(sql`${tasks.parentId} is not null`),
  ],
)

export const isLive = isNull(tasks.deletedAt)
export const isTrashed = isNotNull(tasks.deletedAt)

const columns: Record<string, PgColumn> = getTableColumns(tasks)

/** The column of this name in the database, which is also that of a field. */
export const columnOf = (name: string): PgColumn => columns[camelCase(name)]!
