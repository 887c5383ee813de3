import { placeholder, type SQL, sql } from 'drizzle-orm'
import { tasks, toInstant } from '../../db/schema.ts'
import { parseInstant } from '../../instant.ts'
import type { Task, TaskUpdate } from './model.ts'
import { wordsOf } from './words.ts'

/** How a task crosses the border of the database: the columns that come out, the patch that goes in. */

/** The columns that a person sees of a task, in the order of `toTask`; the person's own id is known. */
export const columns = [
  tasks.id,
  tasks.title,
  tasks.description,
  tasks.status,
  tasks.priority,
  tasks.dueAt,
  tasks.tags,
  tasks.position,
  tasks.completedAt,
  tasks.createdAt,
  tasks.updatedAt,
  tasks.version,
] as const

export type TaskRow = [
  id: string,
  title: string,
  description: string | null,
  status: Task['status'],
  priority: number,
  dueAt: string | null,
  tags: string[],
  position: string,
  completedAt: string | null,
  createdAt: string,
  updatedAt: string,
  version: number,
]

export function toTask(row: TaskRow, userId: string): Task {
  return {
    id: row[0],
    user_id: userId,
    title: row[1],
    description: row[2],
    status: row[3],
    priority: row[4],
    due_at: row[5] === null ? null : toInstant(row[5]),
    tags: row[6],
    position: row[7],
    completed_at: row[8] === null ? null : toInstant(row[8]),
    created_at: toInstant(row[9]),
    updated_at: toInstant(row[10]),
    version: row[11],
  }
}

/** The columns by name, as the fields of `from`. */
export const columnsOf = (from: string): SQL =>
  sql.join(
    columns.map(column => sql.raw(`${from}.${column.name}`)),
    sql`, `,
  )

/** As many nulls, for a row that stands for no task. With types, for a UNION in which such rows come first. */
export const noColumns: SQL = sql.raw(columns.map(column => `null::${column.getSQLType()}`).join(', '))

/** A value of the request, by name; the type keeps PostgreSQL from guessing. */
export const value = (name: string, type: string): SQL => sql`${placeholder(name)}::${sql.raw(type)}`

/**
 * A change as the statements take it: a JSON object with the columns that it touches, which
 * `jsonb_populate_record` lays over a row: omitted keeps, null clears.
 */
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

/** The columns that a new row gets, and what they get from `r`: a patch laid over nothing. */
export const insertColumns = sql.raw(`
  id, user_id, title, title_words, description, description_words, status, priority, due_at, tags, position,
  completed_at, version`)
export const insertValues = sql.raw(`
  r.title, r.title_words, r.description, coalesce(r.description_words, ''), coalesce(r.status, 'pending'),
  coalesce(r.priority, 0), r.due_at, coalesce(r.tags, '{}'), coalesce(r.position, ''),
  case when r.status = 'completed' then now() end`)

/** The columns that a change may touch, and the subquery that computes them from the row `t` and a patch. */
export const changedColumns = sql.raw(`
  title, title_words, description, description_words, status, priority, due_at, tags, position, completed_at`)
export const changedValues = (patch: SQL) => sql`
  select r.title, r.title_words, r.description, r.description_words, r.status, r.priority, r.due_at, r.tags,
         r.position, case when r.status = 'completed' then coalesce(t.completed_at, now()) end
  from jsonb_populate_record(t, ${patch}) r`
