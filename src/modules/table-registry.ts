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

/** What is true of a table, so that no command forgets it. A backup holds all tables, and a restore reads all. */
interface Registration {
  table: PgTable
  /** The column that names the user whose rows they are; or why there is none. */
  owner: PgColumn | { none: string }
  /** The type of its lines in an export; or why they are not exported. Import reads the same lines. */
  exportedAs: 'user' | 'list' | 'task' | 'tombstone' | 'list_tombstone' | { not: string }
  /** How its rows go when the account is deleted: at once with the account, or in steps after it. */
  deletedWithAccount: 'at once' | 'in steps' | { not: string }
}

/** Every table of the database. */
export const registry = [
  { table: users, owner: users.id, exportedAs: 'user', deletedWithAccount: 'at once' },
  { table: tasks, owner: tasks.userId, exportedAs: 'task', deletedWithAccount: 'in steps' },
  { table: lists, owner: lists.userId, exportedAs: 'list', deletedWithAccount: 'in steps' },
  {
    table: taskTombstones,
    owner: taskTombstones.userId,
    exportedAs: 'tombstone',
    deletedWithAccount: 'in steps',
  },
  {
    table: listTombstones,
    owner: listTombstones.userId,
    exportedAs: 'list_tombstone',
    deletedWithAccount: 'in steps',
  },
  {
    table: userVersions,
    owner: userVersions.userId,
    exportedAs: { not: 'the line of the user has the last version' },
    deletedWithAccount: 'in steps',
  },
  {
    table: sessions,
    owner: sessions.userId,
    exportedAs: { not: 'users sign in again after an import' },
    deletedWithAccount: 'at once',
  },
  {
    table: apiTokens,
    owner: apiTokens.userId,
    exportedAs: { not: 'a key that was made for one installation opens no other' },
    deletedWithAccount: 'at once',
  },
  {
    table: sessionEnds,
    owner: { none: 'it has ids of sessions and API tokens, which are random' },
    exportedAs: { not: 'it is for replicas that run, and is deleted a few minutes later' },
    deletedWithAccount: { not: 'deleting an account writes into it' },
  },
  {
    table: tickets,
    owner: tickets.userId,
    exportedAs: { not: 'a ticket is valid for a minute' },
    deletedWithAccount: 'at once',
  },
  {
    table: rateLimits,
    owner: { none: 'its keys are hashes' },
    exportedAs: { not: 'it holds attempts of the last minutes' },
    deletedWithAccount: { not: 'nothing in it leads to an account, and it is deleted an hour later' },
  },
] as const satisfies Registration[]

/**
 * The tables that `todo-api migrate --distribute` splits over several servers: those without a foreign key to `users`. The
 * others are small, and stay on the coordinator.
 */
export const distributedTables: UserTable[] = registry
  .filter(entry => entry.deletedWithAccount === 'in steps')
  .map(({ table, owner }) => ({ name: getTableName(table), column: owner.name }))
