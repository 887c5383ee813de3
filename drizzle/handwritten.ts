/**
 * What drizzle-kit cannot make from the tables: functions, triggers and the storage of columns. `bun run db:generate` writes
 * a text that is new or has changed into the next migration, and tests/migration-rules.test.ts holds that each is in one.
 */
import { type Column, getTableColumns, getTableName, type Table } from 'drizzle-orm'
import { typeOf } from '../src/db/tables.ts'
import { lists } from '../src/modules/lists/table.ts'
import { fields, fieldsWith } from '../src/modules/tasks/fields.ts'
import { childrenMax, tasks } from '../src/modules/tasks/table.ts'

/** Records the end of a session, whether by a sign-out, a deleted account or an operator with psql. */
const sessionsEnded = `CREATE FUNCTION "note_session_ends"() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO "session_ends" ("session_id", "ended_at") SELECT "id", clock_timestamp() FROM "ended";
  RETURN NULL;
END
$$;
--> statement-breakpoint
CREATE TRIGGER "sessions_ended" AFTER DELETE ON "sessions" REFERENCING OLD TABLE AS "ended"
  FOR EACH STATEMENT EXECUTE FUNCTION "note_session_ends"();`

/** The same for API tokens; the function reads only `id`. */
const apiTokensEnded = `CREATE TRIGGER "api_tokens_ended" AFTER DELETE ON "api_tokens" REFERENCING OLD TABLE AS "ended"
  FOR EACH STATEMENT EXECUTE FUNCTION "note_session_ends"();`

/** Every change of a user's tasks rewrites this row. Half-empty pages let PostgreSQL do that in place. */
const userVersionsFillfactor = 'ALTER TABLE "user_versions" SET (fillfactor = 50);'

const listsJson = storedJson({
  table: lists,
  columns: ['id', 'name', 'position', 'created_at', 'updated_at', 'version'],
  rules: {
    lists_name_length: 'char_length(NEW.name) BETWEEN 1 AND 100',
    lists_name_not_blank: String.raw`ltrim(NEW.name, E' \t\n\x0b\f\r') <> ''`,
    lists_position_length: 'char_length(NEW.position) <= 255',
  },
})

export const tasksJson = storedJson({
  table: tasks,
  columns: Object.keys(fields),
  rules: Object.fromEntries([
    ...fieldsWith('rules').flatMap(([name, { rules }]) =>
      Object.entries(rules).map(([rule, holds]) => [`tasks_${name}_${rule}`, holds(`NEW.${name}`)]),
    ),
    ['tasks_completed_at_matches', `(NEW.status = 'completed') = (NEW.completed_at IS NOT NULL)`],
  ]),
})

/**
 * What a parent must be: a live task of the same user, that has no parent and at most 200 children. A trigger, because its
 * queries see what other writers have committed meanwhile: each writer of a user holds the row of the user's versions.
 * It runs for live tasks that get a parent, and for those that come back from the trash with one. It names the table by
 * `TG_RELID`, which on a distributed PostgreSQL is the shard: that has all rows of the user.
 */
const tasksCheckParent = `CREATE OR REPLACE FUNCTION "check_parent"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  broken text;
BEGIN
  -- By the ids alone: before the table is analyzed, an index of live tasks would look best, and all of the user's be read.
  EXECUTE format('
    SELECT CASE
      WHEN bool_or(deleted_at IS NULL) IS NOT TRUE THEN ''tasks_parent_found''
      WHEN bool_or(parent_id IS NOT NULL) OR
        (SELECT bool_or(deleted_at IS NULL) FROM %1$s WHERE user_id = $3 AND parent_id = $1) THEN ''tasks_parent_nested''
      WHEN (SELECT count(*) FILTER (WHERE deleted_at IS NULL) FROM %1$s WHERE user_id = $3 AND parent_id = $2) > ${childrenMax}
        THEN ''tasks_children_count''
    END
    FROM %1$s WHERE user_id = $3 AND id = $2',
    TG_RELID::regclass) INTO broken USING NEW.id, NEW.parent_id, NEW.user_id;
  IF broken IS NOT NULL THEN
    RAISE EXCEPTION 'task % breaks constraint "%"', NEW.id, broken
      USING ERRCODE = 'check_violation', CONSTRAINT = broken;
  END IF;
  RETURN NULL;
END
$$;`

const tasksCheckParentTriggers = `CREATE TRIGGER "tasks_new_parent" AFTER INSERT ON "tasks" FOR EACH ROW
  WHEN (NEW.parent_id IS NOT NULL AND NEW.deleted_at IS NULL) EXECUTE FUNCTION "check_parent"();
--> statement-breakpoint
CREATE TRIGGER "tasks_other_parent" AFTER UPDATE OF "parent_id", "deleted_at" ON "tasks" FOR EACH ROW
  WHEN (NEW.parent_id IS NOT NULL AND NEW.deleted_at IS NULL AND (NEW.parent_id IS DISTINCT FROM OLD.parent_id OR OLD.deleted_at IS NOT NULL))
  EXECUTE FUNCTION "check_parent"();`

/** Long texts are not compressed: for a row of more than 2 KB that took longer than the rest of the write. */
const tasksStorage = `ALTER TABLE "tasks"
  ALTER COLUMN "description" SET STORAGE EXTERNAL,
  ALTER COLUMN "title_words" SET STORAGE EXTERNAL,
  ALTER COLUMN "description_words" SET STORAGE EXTERNAL,
  ALTER COLUMN "json" SET STORAGE EXTERNAL;`

export const handwritten = [
  sessionsEnded,
  apiTokensEnded,
  userVersionsFillfactor,
  ...Object.values(listsJson),
  ...Object.values(tasksJson),
  tasksCheckParent,
  tasksCheckParentTriggers,
  tasksStorage,
]

/** What every row of a table must hold, as SQL that may be null, by the names that a violation is reported under. */
type Rules = Record<string, string>

interface StoredJson {
  table: Table
  /** The columns that the API returns, in this order. */
  columns: readonly string[]
  rules: Rules
}

/**
 * Two texts for the migrations of a table whose column `json` has each row as it is sent: the trigger of every write, and
 * the statement that makes the JSON of all rows again, which a change of `columns` needs.
 *
 * The trigger refuses a row that breaks a rule, as a CHECK of that name would. It refuses an update that keeps the version,
 * of which clients that sync would not learn, whether it comes from the service, from psql or from a foreign key. Then it
 * makes the JSON. A CHECK for each rule, a generated column and a WHEN said the same and cost a third of a write:
 * PostgreSQL parses and plans their expressions again in every statement, and those of a function once in a session.
 */
function storedJson({ table, columns, rules }: StoredJson) {
  const name = getTableName(table)
  const row = name.replace(/s$/, '')
  // All columns but one. They are named so that PostgreSQL refuses to change the type of one: sessions that are open keep
  // the plans of the function, and each of their writes would fail.
  const watched = Object.values(getTableColumns(table))
    .filter(column => column.name !== 'json')
    .map(column => `"${column.name}"`)
    .join(', ')
  const broken = Object.entries(rules).map(([rule, holds]) => `WHEN NOT (${holds}) THEN '${rule}'`)
  const trigger = `CREATE OR REPLACE FUNCTION "write_${row}"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  broken text := CASE
    ${broken.join('\n    ')}
  END;
BEGIN
  IF broken IS NOT NULL THEN
    RAISE EXCEPTION '${row} % breaks constraint "%"', NEW.id, broken
      USING ERRCODE = 'check_violation', CONSTRAINT = broken;
  END IF;
  IF NEW.version <= OLD.version THEN
    RAISE EXCEPTION 'an update of ${row} % keeps its version %: take the next one (update user_versions set last_version = last_version + 1 where user_id = ''%'' returning last_version) and set version to it', OLD.id, OLD.version, OLD.user_id;
  END IF;
  NEW.json := ${rowJson(table, columns, 'NEW.')};
  RETURN NEW;
END
$$;
--> statement-breakpoint
CREATE OR REPLACE TRIGGER "${name}_write" BEFORE INSERT OR UPDATE OF ${watched} ON "${name}"
  FOR EACH ROW EXECUTE FUNCTION "write_${row}"();`
  // A column whose type is set has that type's storage again, which compresses long texts.
  const rewrite = `-- Allowed: its type stays, and old replicas wait.
ALTER TABLE "${name}" ALTER COLUMN "json" SET DATA TYPE text USING ${rowJson(table, columns)};
--> statement-breakpoint
ALTER TABLE "${name}" ALTER COLUMN "json" SET STORAGE EXTERNAL;`
  return { trigger, rewrite }
}

/** The SQL expression of a row as JSON text, the way the API sends it. `prefix` stands before each column. */
function rowJson(table: Table, columns: readonly string[], prefix = ''): string {
  const all = Object.values(getTableColumns(table))
  const members = columns.map(name => {
    const column = all.find(column => column.name === name)!
    return `"${name}":' || ${columnJson(column, prefix)}`
  })
  return `'{${members.join("\n    || ',")} || '}'`
}

/** The SQL expression of a column as JSON. */
function columnJson(column: Column, prefix: string): string {
  const type = typeOf(column)
  const value = `${prefix}"${column.name}"`
  const json = (): string => {
    if (type === 'uuid' || column.enumValues) return `'"' || ${value} || '"'`
    if (type.endsWith('int') || type === 'integer') return `${value}::text`
    if (type.startsWith('timestamp'))
      return `to_char(${value} at time zone 'UTC', '"\\""YYYY-MM-DD"T"HH24:MI:SS.US"Z\\""')`
    if (type === 'text') return `to_json(${value})::text`
    if (type === 'text[]') return `case when ${value} = '{}' then '[]' else array_to_json(${value})::text end`
    throw new Error(`drizzle/handwritten.ts: say in \`columnJson\` how a ${type} is written as JSON`)
  }
  return column.notNull ? json() : `coalesce(${json()}, 'null')`
}
