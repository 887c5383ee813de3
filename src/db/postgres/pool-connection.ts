import { AppError } from '../../lib/errors.ts'
import type { Query } from '../driver.ts'
import { isServerError, type SingleConnection } from './single-connection.ts'

/** A connection that is never opened again: when it is lost, the pool opens another one. */
export interface PoolConnection {
  /** True as soon as no more answers can be expected. */
  readonly lost: boolean
  /** True when the server refused writes at the handshake; the connection is replaced soon. */
  readonly isReadOnly: boolean
  /** The number of statements that may be sent before the first is answered. */
  readonly depthMax: number
  readonly run: Query
  /** The error for the caller of a failed `run`; notes whether the failure was the end of the connection. */
  failure(error: unknown): unknown
  /** Closes the connection within a second. */
  end(): Promise<void>
  /** Closes it at once; unanswered statements are rejected. */
  destroy(): void
}

/** Each prepared statement costs the server memory for as long as the connection lives. */
const preparedMax = 256

/**
 * A connection for the pool.
 *
 * Behind a proxy that pools transactions the next statement may go to another session of the server. So nothing is
 * prepared there and nothing is pipelined: PgBouncer before 1.21 then mixes up answers, and values reach another client's
 * statement.
 */
export function toPoolConnection(single: SingleConnection, mayPrepare: boolean): PoolConnection {
  const canPrepare = mayPrepare && !single.isProxied
  const prepared = new Set<string>()

  function mayPrepareText(text: string): boolean {
    if (!canPrepare) return false
    return prepared.has(text) || (prepared.size < preparedMax && prepared.add(text) !== undefined)
  }

  return {
    get lost() {
      return single.lost
    },
    isReadOnly: single.isReadOnly,
    depthMax: canPrepare ? 4 : 1,
    run: (text, values, options) =>
      single.ask(text, values, { ...options, prepare: options?.prepare === true && mayPrepareText(text) }),
    failure(error) {
      // The server has become a standby, or the name has moved to another one.
      if (isServerError(error) && error.code === '25006' && !single.isReadOnly) void single.end()
      return isUnavailable(error) ? unavailable(error) : error
    },
    end: single.end,
    destroy: single.destroy,
  }
}

/**
 * SQLSTATEs of failures that are not the statement's: connection (08), authentication (28), database name (3D), resources
 * (53), operator (57: shutdown, startup, statement_timeout), read-only server, serialization, deadlock, lock_timeout.
 */
const unavailableStates = /^(08|28|3D|53|57)|^(25006|40001|40P01|55P03)$/

/** Whether a failure means that the database is away or overloaded, not that the statement is wrong. */
export function isUnavailable(error: unknown): boolean {
  if (isServerError(error)) return unavailableStates.test(error.code)
  // Errors of sockets, TLS and postgres.js have a code; this one is a mistake of the caller.
  return error instanceof Error && 'code' in error && error.code !== 'MAX_PARAMETERS_EXCEEDED'
}

/** The 503 of a database that cannot answer; `cause` is for the log. */
export function unavailable(cause: unknown): AppError {
  return new AppError('unavailable', { cause: typeof cause === 'string' ? new Error(cause) : cause })
}
