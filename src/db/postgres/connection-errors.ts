import postgres from 'postgres'
import { unavailable, unavailableStates } from '../pg-error.ts'

/** Whether it is an error that the server reported, not one of the connection. */
export function isServerError(error: unknown): error is postgres.PostgresError {
  return error instanceof postgres.PostgresError
}

/** The error of a lost connection: whether its unanswered statements were executed is unknown. */
export function connectionLost(cause?: unknown): Error {
  return Object.assign(new Error('the connection was lost', { cause }), { code: 'CONNECTION_CLOSED' })
}

/** Whether a failure means that the database is away or overloaded, not that the statement is wrong. */
export function isUnavailable(error: unknown): boolean {
  if (isServerError(error)) return unavailableStates.test(error.code)
  // Errors of sockets, TLS and postgres.js have a code; a mistake of the caller has none.
  return error instanceof Error && 'code' in error
}

/** What the caller of a failed statement gets. */
export const forCaller = (error: unknown) => (isUnavailable(error) ? unavailable(error) : error)
