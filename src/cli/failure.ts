import { ConfigError } from '../config/config.ts'
import { DatabaseUrlError } from '../config/database-url.ts'
import { databaseError, isSchemaMissing } from '../db/pg-error.ts'
import { AppError } from '../lib/errors.ts'
import { UsageError } from './terminal.ts'

/** How a command that has failed ends: exit code 2 for wrong use or settings, else 1; one line for the terminal, or none. */
export function failureOf(error: unknown): { message: string | undefined; exitCode: number } {
  const isWrongUse = [ConfigError, DatabaseUrlError, UsageError].some(kind => error instanceof kind)
  return { message: messageOf(error), exitCode: isWrongUse ? 2 : 1 }
}

/** Contains no value of a setting or of a statement. */
function messageOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return 'unknown failure'
  // Closing the database failed, too: what comes first says more.
  if (error instanceof SuppressedError) return messageOf(error.suppressed)
  // The reader of our output has closed it, as `head` does.
  if ('code' in error && error.code === 'EPIPE') return undefined
  if (error instanceof AppError && error.code === 'unavailable') {
    return `the database is unavailable${error.cause instanceof Error ? `: ${error.cause.message}` : ''}`
  }
  // Drizzle's own message contains the statement and its values.
  if ('query' in error && error.cause) return messageOf(error.cause)
  if (databaseError(error) && error.name !== 'MigrationError') {
    const cure = isSchemaMissing(error) ? '; todo-api migrate makes what is missing' : ''
    return `the database says: ${error.message}${cure}`
  }
  return error.message
}
