import type { Driver } from '../db/driver.ts'
import type { Db } from '../db/drizzle.ts'
import { type ApiTokenInput, createApiToken } from '../modules/auth/api-tokens.ts'
import { type AccessChange, changeAccess } from '../modules/auth/end-access.ts'
import { eraseUser } from '../modules/tasks/erasure.ts'
import { addRows, type NewRow } from './transfer/bulk-insert.ts'

export type Operations = ReturnType<typeof operationsOn>

/** A database for a command: that of a running service refuses transactions other than `Operations`. */
export type CommandDriver = Driver & AsyncDisposable & Operations

/**
 * What commands do in transactions. Each is one call, which the service runs as a whole when it has the database: a command
 * that hangs then holds no lock.
 */
export const operationsOn = (db: Db) => ({
  addRows: (rows: readonly NewRow[]) => addRows(db, rows),
  change: (userId: string, to: AccessChange) => changeAccess(db, userId, to),
  createToken: (userId: string, input: ApiTokenInput) => createApiToken(db, userId, input),
  /** Deletes what a deleted account has left. */
  erase: (userId: string) => eraseUser(db, userId),
})
