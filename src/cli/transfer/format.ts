import { getTableColumns } from 'drizzle-orm'
import type { PgColumn } from 'drizzle-orm/pg-core'
import { exportedTables, type RowType } from '../../modules/table-registry.ts'
import { isWords } from '../../modules/tasks/to-columns.ts'

/** The first line of an export. */
export const exportFormat = { format: 'todo-api-export', version: 3 } as const

/** The columns that a line of a type holds. Those that follow from others are left out: `import` computes them again. */
export const exportedColumns = (type: RowType) =>
  Object.values<PgColumn>(getTableColumns(exportedTables[type])).filter(
    ({ name }) => name !== 'normalized_email' && name !== 'json' && !isWords(name),
  )

/** A count of 0 for each type. */
export const zeroCounts = () =>
  Object.fromEntries(Object.keys(exportedTables).map(type => [type, 0])) as Record<RowType, number>
