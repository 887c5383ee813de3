import { type Column, getTableColumns, type Table } from 'drizzle-orm'

/** The type of a column, without a collation. */
export const typeOf = (column: Column): string => column.getSQLType().replace(/ COLLATE .*/, '')

/**
 * A function that makes the JSON of a row as text, the way the API sends it, of these columns. Declared IMMUTABLE, though
 * PostgreSQL calls `to_json` and `to_char` only STABLE: no setting of a session changes their result for these types and
 * formats. PL/pgSQL caches its plans; a function in SQL would start an executor at each call.
 */
export function jsonFunction(name: string, table: Table, columns: readonly string[]): string {
  const all = Object.values(getTableColumns(table))
  const column = (name: string) => all.find(column => column.name === name)!
  return `CREATE FUNCTION "${name}"(
  ${columns.map(name => `"${name}" ${typeOf(column(name))}`).join(', ')}
) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
declare
  moment constant text := '"\\""YYYY-MM-DD"T"HH24:MI:SS.US"Z\\""';
begin
  return '{${columns.map(name => `"${name}":' || ${jsonOf(column(name))}`).join("\n    || ',")} || '}';
end $$;`
}

/** The SQL expression of a column as JSON. */
function jsonOf(column: Column): string {
  const type = typeOf(column)
  const value = `"${column.name}"`
  const json = (): string => {
    if (type === 'uuid' || column.enumValues) return `'"' || ${value} || '"'`
    if (type.endsWith('int') || type === 'integer') return `${value}::text`
    if (type.startsWith('timestamp')) return `to_char(${value} at time zone 'UTC', moment)`
    if (type === 'text') return `to_json(${value})::text`
    if (type === 'text[]') return `case when ${value} = '{}' then '[]' else array_to_json(${value})::text end`
    throw new Error(`src/db/json-column.ts: say in \`jsonOf\` how a ${type} is written as JSON`)
  }
  return column.notNull ? json() : `coalesce(${json()}, 'null')`
}
