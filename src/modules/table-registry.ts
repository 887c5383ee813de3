import { getTableName } from 'drizzle-orm'
import type { PgColumn, PgTable } from 'drizzle-orm/pg-core'
import type { UserTable } from '../db/distribute.ts'
import {
  apiTokens,
  listTombstones,
  rateLimits,
  sessionEnds,
  sessions,
  taskTombstones,
  tickets,
  users,
  userVersions,
} from '../db/tables.ts'
import { lists } from './lists/table.ts'
import { tasks } from './tasks/table.ts'

/**
 * What is true of a table, so that no command forgets it. A backup holds all tables, a restore reads all, and the deletion of
 * an account deletes the rows of its owner.
 */
interface RegisteredTable {
  table: PgTable
  /** The column that names the user whose rows they are. */
  owner?: PgColumn
}

/** Every table of the database. */
export const registry: RegisteredTable[] = [
  { table: users, owner: users.id },
  { table: tasks, owner: tasks.userId },
  { table: lists, owner: lists.userId },
  { table: taskTombstones, owner: taskTombstones.userId },
  { table: listTombstones, owner: listTombstones.userId },
  // The line of the user has the last version.
  { table: userVersions, owner: userVersions.userId },
  // After an import users sign in again, and a key that was made for one installation opens no other.
  { table: sessions, owner: sessions.userId },
  { table: apiTokens, owner: apiTokens.userId },
  { table: tickets, owner: tickets.userId },
  // Their keys are random ids and hashes. Both are deleted soon.
  { table: sessionEnds },
  { table: rateLimits },
]

/** The tables in an export, by the type of their lines. Import reads the same lines. */
export const exportedTables = {
  user: users,
  list: lists,
  task: tasks,
  tombstone: taskTombstones,
  list_tombstone: listTombstones,
}

export type RowType = keyof typeof exportedTables

/**
 * The tables that `todo-api migrate --distribute` splits over several servers: those without a foreign key to `users`. The
 * others are small, and stay on the coordinator.
 */
export const distributedTables: UserTable[] = [
  tasks,
  lists,
  taskTombstones,
  listTombstones,
  userVersions,
].map(table => ({ name: getTableName(table), column: table.userId.name }))
