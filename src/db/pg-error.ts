import { AppError, findAppError } from '../lib/errors.ts'
import { isSqlState } from '../lib/sql-state.ts'

interface DatabaseError {
  message: string
  code: string
  constraint_name?: string
  /** The same of PGlite, and of a service that a command asks (cli/control-socket.ts). */
  constraint?: string
}

/**
 * SQLSTATEs of failures that are not the statement's: connection (08), authentication (28), database name (3D), resources
 * (53), operator (57: shutdown, startup, statement_timeout), system (58: its files), damage (XX), read-only server, a
 * transaction that has failed before, serialization, deadlock, lock_timeout.
 */
export const unavailableStates = /^(08|28|3D|53|57|58|XX)|^(25006|25P02|40001|40P01|55P03)$/

/** The PostgreSQL error behind a failure, whichever driver or wrapper threw it; `undefined` for anything else. */
export function databaseError(error: unknown): DatabaseError | undefined {
  for (let e = error; e instanceof Error; e = e.cause) {
    if ('code' in e && isSqlState(e.code)) return e as Error & DatabaseError
  }
  return undefined
}

/** The name of the constraint that a failed statement broke (SQLSTATE class 23), `''` when it has no name. */
export function brokenConstraint(error: unknown): string | undefined {
  const failure = databaseError(error)
  if (!failure?.code.startsWith('23')) return undefined
  // Citus has it in the message alone, with the number of the shard behind it.
  const [, named] = /constraint "(\w+?)(?:_\d{6,})?"/.exec(failure.message) ?? []
  return failure.constraint_name ?? failure.constraint ?? named ?? ''
}

/** Whether a statement met a database without our tables or columns, or with older ones: its migrations have not run yet. */
export function isSchemaMissing(error: unknown): boolean {
  // No such table, no such column, a column that is generated still.
  return ['42P01', '42703', '428C9'].includes(databaseError(error)?.code ?? '')
}

/** Whether the role of `DATABASE_URL` may not do what a statement does: while a dump is restored, rights come last. */
const isPrivilegeMissing = (error: unknown): boolean => databaseError(error)?.code === '42501'

/** The 503 of a database that cannot answer; `cause` is for the log, and for commands. */
export function unavailable(cause: unknown): AppError {
  return new AppError('unavailable', { cause: typeof cause === 'string' ? new Error(cause) : cause })
}

/** Whether a failure is the database's: it does not answer, or what the statement needs is not there yet. It passes. */
export const isOutage = (error: unknown): boolean =>
  findAppError(error)?.code === 'unavailable' || isSchemaMissing(error) || isPrivilegeMissing(error)
