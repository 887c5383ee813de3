import { getTableColumns, placeholder, type SQL, sql } from 'drizzle-orm'
import { tasks } from '../../db/schema.ts'
import { parseInstant } from '../../instant.ts'
import type { Task, TaskCreate, TaskUpdate } from './model.ts'
import { wordsOf } from './words.ts'

/** How a task crosses the border of the database: the columns that come out, the patch that goes in. */

export const comma = sql.raw(', ')

/** What comes out of a task: its JSON, which the database has made, and what headers say of it. */
export const columns = [tasks.id, tasks.version, tasks.json] as const

export type TaskRow = [id: string, version: number, json: string]

/** A task that can be sent as it is. */
export interface ReadyTask {
  id: string
  version: number
  /** What `task` of the model describes. */
  json: string
}

/** A row as it goes to the routes. */
export const toReady = ([id, version, json]: TaskRow): ReadyTask => ({ id, version, json })

/** A task to be looked into, or put into a larger answer. */
export const toTask = (json: string): Task => JSON.parse(json)

/** The columns by name, as the fields of `from`. */
export const columnsOf = (from: string): SQL =>
  sql.join(
    columns.map(column => sql.raw(`${from}.${column.name}`)),
    comma,
  )

/** As many nulls, for a row that stands for no task. With types, for a UNION in which such rows come first. */
export const noColumns: SQL = sql.raw(columns.map(column => `null::${column.getSQLType()}`).join(', '))

/** A value of the request, by name; the type keeps PostgreSQL from guessing. */
export const value = (name: string, type: string): SQL => sql`${placeholder(name)}::${sql.raw(type)}`

/**
 * A condition without an index of its own, to be looked at while the list is read in its order. PostgreSQL would take
 * it for a rare one, and read and sort the whole list first; what stands in a `coalesce` it takes for true half the time.
 */
export function inPassing(condition: SQL): SQL {
  return sql`coalesce(${condition}, false)`
}

/** What a change touches, by column; what is absent stays as it is, and null clears. */
export function toPatch({ title, description, status, priority, due_at, tags, position }: TaskUpdate) {
  return {
    ...(title !== undefined && { title, title_words: wordsOf(title) }),
    ...(description !== undefined && { description, description_words: wordsOf(description ?? '') }),
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

/** The columns that a person's words go to. */
export const fields = Object.keys(blank)
const fieldList = sql.raw(fields.join(', '))

const types = Object.fromEntries(
  Object.values(getTableColumns(tasks)).map(column => [column.name, column.getSQLType()]),
)

/** What a request says about a column. */
export const fieldValue = (field: string): SQL => value(field, types[field]!)

/** The columns that a new row gets, and their values, where `of` says which a person has given. */
export const insertColumns = sql`id, user_id, ${fieldList}, completed_at, version`
export const insertValues = (of: (field: string) => SQL): SQL =>
  sql`${sql.join(fields.map(of), comma)}, case when ${of('status')} = 'completed' then now() end`

/** The same for a change of the row `t`, to all of these columns at once; `r` is the row as it will be. */
export const changedColumns = sql`${fieldList}, completed_at`
export const changedValues = sql`${sql.join(
  fields.map(field => sql.raw(`r.${field}`)),
  comma,
)}, ${completedAt(sql`r.status`)}`

/** When the task was completed: what was completed before keeps its moment. */
export function completedAt(status: SQL): SQL {
  return sql`case when ${status} = 'completed' then coalesce(t.completed_at, now()) end`
}
