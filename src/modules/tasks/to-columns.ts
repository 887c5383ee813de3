import type { PgColumn } from 'drizzle-orm/pg-core'
import { fieldsWith, type InputName } from './fields.ts'
import { columnOf } from './table.ts'

const inputFields = fieldsWith('input')

/** What a request says about a task. */
type Input = { [Name in InputName]?: unknown }

/** The columns that a request sets, always in the order of the fields; absent fields are not among them. */
export function toColumns(input: Input): Record<string, unknown> {
  const columns: Record<string, unknown> = {}
  for (const [name, { toColumns }] of inputFields) {
    const value = input[name as InputName]
    if (value === undefined) continue
    if (toColumns) Object.assign(columns, toColumns(value as never))
    else columns[name] = value
  }
  return columns
}

/** Whether a column has the words of a text, which follow from it. */
export const isWords = (column: string) => column.endsWith('_words')

/** What a column of a new task holds if the request does not set it. */
export const initialOf = (column: PgColumn) => column.default ?? null

/**
 * What a request says about a new task, as text. What says no more than the default is left out, and so are the words, so
 * that the text stays the same when a release adds a field or finds words in another way.
 */
export function requestText(input: Input): string {
  const columns = Object.entries(toColumns(input)).filter(
    ([name, value]) => !isWords(name) && !Bun.deepEquals(value, initialOf(columnOf(name))),
  )
  return JSON.stringify(columns.sort(([a], [b]) => (a < b ? -1 : 1)))
}
