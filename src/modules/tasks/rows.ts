import { getTableColumns, placeholder, type SQL, sql } from 'drizzle-orm'
import { tasks } from '../../db/tables.ts'
import { parseInstant } from '../../lib/instant.ts'
import type { Task, TaskCreate, TaskUpdate } from './model.ts'
import { tokenize } from './words.ts'

/** How a task crosses the border of the database: the columns that come out, the patch that goes in. */

export const comma = sql.raw(', ')

/** What every statement returns of a task: its JSON, which the database has made, and what the `ETag` says. */
export const serialized = { version: tasks.version, json: tasks.json }

/** A task that can be sent as it is. */
export interface SerializedTask {
  version: number
  /** What `task` of the model describes. */
  json: string
}

/** A task to be looked into, or put into a larger answer. */
export const toTask = (json: string): Task => JSON.parse(json)

/** A value of the request, by name; the type keeps PostgreSQL from guessing. */
export const value = (name: string, type: string): SQL => sql`${placeholder(name)}::${sql.raw(type)}`

/** What a change touches, by column; what is absent stays as it is, and null clears. */
export function toPatch({ title, description, status, priority, due_at, tags, position }: TaskUpdate) {
  return {
    ...(title !== undefined && { title, title_words: tokenize(title) }),
    ...(description !== undefined && { description, description_words: tokenize(description ?? '') }),
    ...(status !== undefined && { status }),
    ...(priority !== undefined && { priority }),
    ...(due_at !== undefined && { due_at: due_at && parseInstant(due_at) }),
    ...(tags !== undefined && { tags: [...new Set(tags)] }),
    ...(position !== undefined && { position }),
  }
}

/** A new task by column: all of `toPatch`, with what it is if nothing is said. */
export const toNewRow = (input: TaskCreate) => ({ ...blank, ...toPatch(input) })

const blank = {
  title: '',
  title_words: '',
  description: null,
  description_words: '',
  status: 'pending',
  priority: 0,
  due_at: null,
  tags: [],
  position: '',
}

/** The columns that a request can set. */
export const fields = Object.keys(blank)

const columns = Object.entries(getTableColumns(tasks))
const types = Object.fromEntries(columns.map(([, column]) => [column.name, column.getSQLType()]))
const keys = Object.fromEntries(columns.map(([key, column]) => [column.name, key]))

/** What a request says about a column. */
export const fieldValue = (field: string): SQL => value(field, types[field]!)

/** For `set()` of an update: these columns, each as `of` says, and what follows from them. */
export function assignments(fields: readonly string[], of: (field: string) => SQL): Record<string, SQL> {
  const given = Object.fromEntries(fields.map(field => [keys[field]!, of(field)]))
  return fields.includes('status') ? { ...given, completedAt: completedAt(of('status')) } : given
}

/** When a task was completed: one that was completed before keeps its moment. */
const completedAt = (status: SQL) =>
  sql`case when ${status} = 'completed' then coalesce(${tasks.completedAt}, now()) end`

/**
 * The select list of an insert: the builder wants every column of the table there. `given` are those that no request
 * sets, `of` says the others; what neither has is what the table says.
 */
export function newTask(given: Record<'id' | 'user_id' | 'version', SQL>, of: (field: string) => SQL): SQL {
  const completedAt = sql`case when ${of('status')} = 'completed' then now() end`
  const values: Record<string, SQL> = { ...given, completed_at: completedAt }
  for (const field of fields) values[field] = of(field)
  const list = columns
    .filter(([, column]) => !column.generated)
    .map(([, { name, default: byTable }]) => values[name] ?? (byTable as SQL | undefined) ?? sql`null`)
  return sql.join(list, comma)
}
