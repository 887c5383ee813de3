import { listTombstones, taskTombstones, users } from '../../db/tables.ts'
import { lists } from '../../modules/lists/table.ts'
import { tasks } from '../../modules/tasks/table.ts'

/** The tables that are exported and imported, by the type of their lines. */
export const tables = {
  user: users,
  list: lists,
  task: tasks,
  tombstone: taskTombstones,
  list_tombstone: listTombstones,
}

export type RowType = keyof typeof tables

/** Where the rows of each type begin to be counted. */
export const noRows = () =>
  Object.fromEntries(Object.keys(tables).map(type => [type, 0])) as Record<RowType, number>
