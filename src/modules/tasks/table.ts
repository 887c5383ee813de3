import { type Column, getTableColumns, sql } from 'drizzle-orm'
import {
  check,
  foreignKey,
  index,
  type PgColumn,
  pgTable,
  primaryKey,
  text,
  uniqueIndex,
} from 'drizzle-orm/pg-core'
import { bytewiseText, instant, userVersions } from '../../db/tables.ts'
import { type FieldName, fields, fieldsWith } from './fields.ts'

/** `due_at` as `dueAt`: Drizzle's name of a column. */
type CamelCase<Name extends string> = Name extends `${infer First}_${infer Rest}`
  ? `${First}${Capitalize<CamelCase<Rest>>}`
  : Name
const camelCase = (name: string) => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())

const fieldColumns = Object.fromEntries(
  Object.entries(fields).map(([name, { column }]) => [camelCase(name), column]),
) as { [Name in FieldName as CamelCase<Name>]: (typeof fields)[Name]['column'] }

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
    /** The task as it is sent, computed when it is written and not at each read. */
    json: text('json')
      .notNull()
      .generatedAlwaysAs(sql.raw(`task_json(${Object.keys(fields).join(', ')})`)),
  },
  tasks => [
    // The user is part of the key, so that the table can be split by user over several servers.
    primaryKey({ name: 'tasks_pkey', columns: [tasks.id, tasks.userId] }),
    foreignKey({
      name: 'tasks_user_fk',
      columns: [tasks.userId],
      foreignColumns: [userVersions.userId],
    }).onDelete('cascade'),
    // Checked on every write, so there is no regular expression among them.
    ...fieldsWith('checks').flatMap(([name, { checks }]) =>
      Object.entries(checks).map(([rule, holds]) =>
        check(
          `tasks_${name}_${rule}`,
          holds((tasks as unknown as Record<string, PgColumn>)[camelCase(name)]!),
        ),
      ),
    ),
    check(
      'tasks_completed_at_matches',
      sql`(${tasks.status} = 'completed') = (${tasks.completedAt} is not null)`,
    ),
    // Every index slows every write, so there are three besides the key (docs/decisions/0006-lists.md). This one has the
    // default order of lists. Ascending, because PostgreSQL scans an index backwards as fast, and `.desc()` would mean
    // NULLS LAST, which our ORDER BY does not have.
    index('tasks_created').on(tasks.userId, tasks.createdAt, tasks.id).where(sql`${tasks.deletedAt} is null`),
    // The change feed; and no two tasks of a user have one version.
    uniqueIndex('tasks_feed').on(tasks.userId, tasks.version),
    // The trash of a user. The purge scans it for users with old tasks.
    index('tasks_trash')
      .on(tasks.userId, tasks.deletedAt, tasks.id)
      .where(sql`${tasks.deletedAt} is not null`),
  ],
)

const columns = Object.entries(getTableColumns(tasks))

/** The column of a field. */
const byName = new Map<string, PgColumn>(columns.map(([, column]) => [column.name, column]))
export const columnOf = (name: string): PgColumn => byName.get(name)!

/** The type of a column, without a collation. */
export const typeOf = (name: string): string =>
  columnOf(name)
    .getSQLType()
    .replace(/ COLLATE .*/, '')

/** Drizzle's names of the columns. */
export const keyOf = (name: string): string => columns.find(([, column]) => column.name === name)![0]

/**
 * A task as JSON text, the way the API sends it. Declared IMMUTABLE, though PostgreSQL calls `to_json` and `to_char` only
 * STABLE: no setting of a session changes their result for these types and formats. PL/pgSQL caches its plans; a function
 * in SQL would start an executor at each call.
 */
export const taskJson = `CREATE FUNCTION "task_json"(
  ${Object.keys(fields)
    .map(name => `"${name}" ${typeOf(name)}`)
    .join(', ')}
) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
declare
  moment constant text := '"\\""YYYY-MM-DD"T"HH24:MI:SS.US"Z\\""';
begin
  return '{${Object.keys(fields)
    .map(name => `"${name}":' || ${jsonOf(name)}`)
    .join("\n    || ',")} || '}';
end $$;`

/** The SQL expression of a field as JSON. */
function jsonOf(name: string): string {
  const column: Column = columnOf(name)
  const type = typeOf(name)
  const value = `"${name}"`
  const json = (): string => {
    if (type === 'uuid' || column.enumValues) return `'"' || ${value} || '"'`
    if (type.endsWith('int') || type === 'integer') return `${value}::text`
    if (type.startsWith('timestamp')) return `to_char(${value} at time zone 'UTC', moment)`
    if (type === 'text') return `to_json(${value})::text`
    if (type === 'text[]') return `case when ${value} = '{}' then '[]' else array_to_json(${value})::text end`
    throw new Error(`src/modules/tasks/table.ts: say in \`jsonOf\` how a ${type} is written as JSON`)
  }
  return column.notNull ? json() : `coalesce(${json()}, 'null')`
}

/**
 * Every change of a task takes a version, or clients that sync would not learn of it. This trigger refuses an update that
 * keeps the version, whether it comes from the service, from psql or from a foreign key. AFTER, because a BEFORE trigger
 * locks the row a second time and logs that; a correct update costs only the condition.
 */
export const tasksRequireNewVersion = `CREATE FUNCTION "require_new_version"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'an update of task % keeps its version %: take the next one (update user_versions set last_version = last_version + 1 where user_id = ''%'' returning last_version) and set version to it', OLD.id, OLD.version, OLD.user_id;
END
$$;
--> statement-breakpoint
CREATE TRIGGER "tasks_require_new_version" AFTER UPDATE ON "tasks" FOR EACH ROW WHEN (NEW.version <= OLD.version)
  EXECUTE FUNCTION "require_new_version"();`

/** Long texts are not compressed: for a row of more than 2 KB that took longer than the rest of the write. */
export const tasksStorage = `ALTER TABLE "tasks"
  ALTER COLUMN "description" SET STORAGE EXTERNAL,
  ALTER COLUMN "title_words" SET STORAGE EXTERNAL,
  ALTER COLUMN "description_words" SET STORAGE EXTERNAL,
  ALTER COLUMN "json" SET STORAGE EXTERNAL;`
