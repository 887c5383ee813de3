import { getTableColumns } from 'drizzle-orm'
import type { PgColumn } from 'drizzle-orm/pg-core'
import { exportedTables, type RowType } from '../../modules/table-registry.ts'
import { toColumns } from '../../modules/tasks/to-columns.ts'

/** The first line of an export. */
export const exportFormat = { format: 'todo-api-export', version: 3 } as const

const texts = { title: '', description: '' }
/** The columns that `toColumns` adds to them, for the search. */
const wordColumns = Object.keys(toColumns(texts)).filter(name => !(name in texts))

/** The columns that follow from others: `import` computes them again. */
const leftOut: Partial<Record<RowType, string[]>> = {
  user: ['normalized_email'],
  list: ['json'],
  task: [...wordColumns, 'json'],
}

/** The columns that a line of a type holds. */
export const exportedColumns = (type: RowType) =>
  Object.values<PgColumn>(getTableColumns(exportedTables[type])).filter(
    ({ name }) => !leftOut[type]?.includes(name),
  )

/** A count of 0 for each type. */
export const zeroCounts = () =>
  Object.fromEntries(Object.keys(exportedTables).map(type => [type, 0])) as Record<RowType, number>
