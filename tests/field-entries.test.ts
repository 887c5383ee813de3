import { expect, test } from 'bun:test'
import { Value } from '@sinclair/typebox/value'
import { getTableColumns, type SQL, type SQLWrapper } from 'drizzle-orm'
import { PgDialect, type PgTable, pgTable, smallint } from 'drizzle-orm/pg-core'
import { fields } from '../src/modules/tasks/fields.ts'

type Entry = {
  column: unknown
  output: object
  example: unknown
  input?: object
  isRequired?: true
  sortBy?: (column: SQLWrapper) => SQL
}

/** What does not fit together in the entries, each with what to do. */
function problemsOf(entries: Record<string, Entry>): string[] {
  const columns = Object.fromEntries(Object.entries(entries).map(([name, { column }]) => [name, column]))
  const table: PgTable = pgTable('tasks', columns as never)
  const built = getTableColumns(table)
  return Object.entries(entries).flatMap(([name, { output, example, input, isRequired, sortBy }]) => {
    const column = built[name]!
    const accepts = (schema: object | undefined, value: unknown) =>
      schema !== undefined && Value.Check(schema as never, value)
    const problem = (isWrong: boolean, what: string) => (isWrong ? [`${name}: ${what}`] : [])
    return [
      ...problem(column.name !== name, `its column is called ${column.name}: give both one name`),
      ...problem(
        accepts(output, null) === column.notNull,
        '`output` and `column` disagree about null: use nullable() and leave out notNull(), or neither',
      ),
      ...problem(
        input !== undefined && accepts(input, null) === column.notNull,
        '`input` and `column` disagree about null: use nullable() and leave out notNull(), or neither',
      ),
      ...problem(
        isRequired === true && name !== 'title',
        'clients of today do not send it: leave out `isRequired`',
      ),
      ...problem(
        input !== undefined && !isRequired && column.notNull && !column.hasDefault,
        'say in `column` what a task has without it, with default()',
      ),
      ...problem(
        column.default !== undefined && input !== undefined && !accepts(input, column.default),
        'the default of `column` is no valid `input`',
      ),
      ...problem(!accepts(output, example), '`example` does not fit `output`'),
      ...problem(input !== undefined && !accepts(input, example), '`example` does not fit `input`'),
      ...problem(
        sortBy !== undefined &&
          !column.notNull &&
          !new PgDialect().sqlToQuery(sortBy(column)).sql.includes('coalesce('),
        'null has no place in an order, and a cursor would skip it: say in `sortBy` what it counts as, with coalesce()',
      ),
    ]
  })
}

test('the entries of all fields fit together', () => {
  expect(problemsOf(fields)).toEqual([])
})

test('an entry in which something was forgotten is reported with what to do', () => {
  const { column, ...others } = fields.due_at
  const forgotten = {
    ...others,
    column,
    isRequired: true as const,
    sortBy: fields.created_at.sortBy,
    example: 5,
  }

  expect(problemsOf({ due_at: forgotten })).toEqual([
    'due_at: clients of today do not send it: leave out `isRequired`',
    'due_at: `example` does not fit `output`',
    'due_at: `example` does not fit `input`',
    expect.stringContaining('due_at: null has no place in an order'),
  ])
  const { column: _, ...priority } = fields.priority
  expect(problemsOf({ priority: { ...priority, column: smallint('priority').notNull() } })).toEqual([
    'priority: say in `column` what a task has without it, with default()',
  ])
  expect(
    problemsOf({ priority: { ...priority, column: smallint('priority').notNull().default(5) } }),
  ).toEqual(['priority: the default of `column` is no valid `input`'])
  expect(problemsOf({ due: { ...fields.due_at, output: fields.created_at.output } })).toEqual([
    'due: its column is called due_at: give both one name',
    'due: `output` and `column` disagree about null: use nullable() and leave out notNull(), or neither',
  ])
})
