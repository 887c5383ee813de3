import { type Column, getTableColumns, getTableName, type Table } from 'drizzle-orm'

/** The type of a column, without a collation. */
export const typeOf = (column: Column): string => column.getSQLType().replace(/ COLLATE .*/, '')

/** What every row of a table must hold, as SQL that may be null, by the names that a violation is reported under. */
export type Rules = Record<string, string>

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
export function storedJson({ table, columns, rules }: StoredJson) {
  const name = getTableName(table)
  const row = name.replace(/s$/, '')
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
CREATE OR REPLACE TRIGGER "${name}_write" BEFORE INSERT OR UPDATE ON "${name}" FOR EACH ROW EXECUTE FUNCTION "write_${row}"();`
  // A new type brings its own storage: as of the other texts, it is for long values not to be compressed.
  const rewrite = `-- Allowed: its type stays, and old replicas wait.
ALTER TABLE "${name}" ALTER COLUMN "json" SET DATA TYPE text USING ${rowJson(table, columns)},
  ALTER COLUMN "json" SET STORAGE EXTERNAL;`
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
    throw new Error(`src/db/json-column.ts: say in \`columnJson\` how a ${type} is written as JSON`)
  }
  return column.notNull ? json() : `coalesce(${json()}, 'null')`
}
