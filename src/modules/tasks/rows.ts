import { getTableColumns, placeholder, type SQL, sql } from 'drizzle-orm'
import { typeOf } from '../../db/json-column.ts'
import { examples, fieldsWith, type InputName } from './fields.ts'
import { camelCase, columnOf, tasks } from './table.ts'

/** How a task crosses the border of the database: what comes out, and how columns are set. */

/** What every statement returns of a task: its JSON, which the database has made, and what the `ETag` says. */
export const serialized = { version: tasks.version, json: tasks.json }

const inputFields = fieldsWith('input')

/** What a request says about a task. */
type Input = { [Name in InputName]?: unknown }

/** The columns that a request sets, always in the order of the fields; absent fields are not among them. */
export function toColumns(input: Input): Record<string, unknown> {
  const columns = inputFields.map(([name, { toColumns }]) => {
    const value = input[name as InputName]
    if (value === undefined) return {}
    return toColumns ? toColumns(value as never) : { [name]: value }
  })
  return Object.assign({}, ...columns)
}

const initialColumns = toColumns(
  Object.fromEntries(inputFields.map(([name, { initial }]) => [name, initial])),
)

/** The columns of a new task: those of the request, and initial values for the others. */
export const toNewColumns = (input: Input) => ({ ...initialColumns, ...toColumns(input) })

/**
 * What a request says about a new task, as text. What is as if it had not been said is left out, and so are the words, so
 * that the text stays the same when a release adds a field or finds words in another way.
 */
export function requestText(input: Input): string {
  const columns = Object.entries(toColumns(input)).filter(
    ([name, value]) => !name.endsWith('_words') && !Bun.deepEquals(value, initialColumns[name]),
  )
  return JSON.stringify(columns.sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** The columns that requests set. */
export const settableColumns = Object.keys(toColumns(examples))

/** A value of the request, by name; the type keeps PostgreSQL from guessing. */
export const value = (name: string, type: string): SQL => sql`${placeholder(name)}::${sql.raw(type)}`

/** What a request says about a column. */
export const columnValue = (name: string): SQL => value(name, typeOf(columnOf(name)))

/** For `set()` of an update at a `moment`: these columns, each as `of` says, and what follows from them. */
export function assignments(
  names: readonly string[],
  of: (name: string) => SQL,
  moment: SQL,
): Record<string, SQL> {
  const given = Object.fromEntries(names.map(name => [camelCase(name), of(name)]))
  return names.includes('status') ? { ...given, completedAt: completedAt(of('status'), moment) } : given
}

/** When a task was completed: one that was completed before keeps its moment. Citus refuses `now()` itself within `case`. */
const completedAt = (status: SQL, moment: SQL) =>
  sql`case when ${status} = 'completed' then coalesce(${tasks.completedAt}, ${moment}) end`

/**
 * The select list of an insert: the builder wants every column of the table there. `given` are those that no request
 * sets, `of` says the others; what neither has is what the table says.
 */
export function newTask(
  given: Record<'id' | 'user_id' | 'version', SQL> & { request_hash?: SQL },
  of: (name: string) => SQL,
): SQL {
  const values: Record<string, SQL> = {
    ...given,
    completed_at: sql`case when ${of('status')} = 'completed' then now() end`,
  }
  for (const name of settableColumns) values[name] = of(name)
  const list = Object.values(getTableColumns(tasks))
    .filter(({ generated }) => !generated)
    .map(({ name, default: byTable }) => values[name] ?? (byTable as SQL | undefined) ?? sql`null`)
  return sql.join(list, sql`, `)
}
