import { Stream } from 'node:stream'
import type postgres from 'postgres'
import type { QueryOptions, Rows } from '../driver.ts'
import { connectionLost, isServerError } from './connection-errors.ts'

/** A query of postgres.js 3.4.9 with the internal fields (src/query.js, src/connection.js) that are used here. */
interface PostgresQuery {
  resolve(answer: PostgresAnswer): void
  reject(error: unknown): void
  /** Called in place of sending the statement again: see `trapRetries`. */
  onRetry(error: unknown): void
  /** A cancelled statement is not sent. */
  cancelled: unknown
  /** Whether the connection knew the statement before. */
  prepared: boolean
  statement: { string: string } | null
  forEach(each: (row: unknown[]) => void): unknown
}

interface PostgresAnswer {
  count: number | null
  command: string | null
  statement: unknown
  columns: { name: string }[] | null
}

/** What `postgres()` returns. */
type PostgresClient = ReturnType<typeof postgres>

/** In a transaction, a prepared statement no longer fits. With that the transaction has failed. */
export class OutdatedPlan extends Error {}

interface AnswersOptions {
  client: PostgresClient
  /** Ends the connection before another byte is read or written. */
  destroy: () => void
  /** Ends it when every sent statement is answered. */
  retire: () => void
}

/** The protocol counts values in 16 bits. */
const valuesMax = 65_533

/**
 * Sends statements over a connection of postgres.js so that every caller gets the answer to its own statement, or the
 * connection ends and all of its callers get an error.
 *
 * postgres.js assigns answers by their order alone, and loses that order when it sends a statement again by itself, when
 * a value cannot be written and when a statement fails in the middle of its rows (docs/decisions/0003-one-statement.md
 * lists each way). So the order is checked here, each statement collects its own rows, and the connection ends at an
 * answer out of turn, to another text, without an end, or with another number of rows than the server counted; and at
 * every failure that is not the server's.
 */
export function createAnswers({ client, destroy, retire }: AnswersOptions) {
  trapRetries(client)
  const asked: { query: PostgresQuery; reject: (error: unknown) => void }[] = []
  let stopped: unknown

  function stop(cause: unknown) {
    if (stopped) return
    stopped = isCoded(cause) ? cause : connectionLost(cause)
    destroy()
    for (const { reject } of asked.splice(0)) reject(stopped)
  }

  /** postgres.js infers types from these values, wrongly for `[true]` in a jsonb; the server knows the right ones. */
  function untyped(value: unknown) {
    const isInferred = typeof value === 'boolean' || Array.isArray(value)
    return (isInferred ? client.typed(value, 0) : value) as postgres.ParameterOrJSON<never>
  }

  /** Runs one statement; `undefined` among its values is a mistake of the program. */
  function ask(
    text: string,
    values: readonly unknown[],
    options: QueryOptions,
    isSecondTime = false,
  ): Promise<Rows> {
    if (stopped) return Promise.reject(stopped)
    if (values.length > valuesMax) return Promise.reject(new RangeError('A statement has too many values'))
    if (values.includes(undefined))
      return Promise.reject(new TypeError('A value of a statement is undefined'))
    return new Promise((resolve, reject) => {
      const rows: Rows = []
      const query = client
        .unsafe(text, values.map(untyped), {
          prepare: options.prepare === true,
          simple: false,
        } as postgres.UnsafeQueryOptions)
        .values() as unknown as PostgresQuery
      asked.push({ query, reject })

      const settle = (fault: string | undefined, report: () => void) => {
        const isInTurn = asked[0]?.query === query
        if (fault || !isInTurn) return stop(new Error(`postgres.js: ${fault ?? 'an answer out of turn'}`))
        asked.shift()
        report()
      }
      query.resolve = answer => {
        ignoreCopy(answer)
        settle(faultOf(answer, rows.length) ?? mismatchOf(answer, query, text), () => {
          // Only if requested: a property of an array costs 5 % of a statement's time.
          if (options.columns) rows.columns = answer.columns ?? []
          resolve(rows)
        })
      }
      query.reject = error => {
        if (!isServerError(error)) return stop(error)
        settle(undefined, () => {
          // Not 42501: a privilege is looked up each time, and a new session has the same ones.
          const isOfTheSchema = /^(0A000|26|42(?!501))/.test(error.code)
          const wasPrepared =
            query.prepared || isSecondTime || error.routine === 'plpgsql_param_eval_recfield'
          if (isSecondTime && error.code === '25P02') return reject(new OutdatedPlan())
          if (!isOfTheSchema) return reject(error)
          // The schema has changed, or what the session sees of it: a new connection prepares again, and has the settings of now.
          retire()
          // It was valid when it, or what a trigger does, was prepared.
          reject(wasPrepared ? connectionLost(error) : error)
        })
      }
      // The plan is outdated. The server has executed nothing, so the statement is sent once more, in its turn. postgres.js
      // would send it between later statements, with its values encoded twice.
      query.onRetry = error =>
        settle(undefined, () =>
          isSecondTime
            ? reject(connectionLost(error))
            : ask(text, values, options, true).then(resolve, reject),
        )
      // Collected here: postgres.js continues its own list where a failed statement stopped.
      query.forEach(row => void rows.push(row))
    })
  }

  return ask
}

/**
 * postgres.js sets `retried` before it sends a statement again, and does not send one that is cancelled. The setter is on
 * the class, which is not exported, because it costs nothing there.
 */
function trapRetries(client: PostgresClient) {
  const queries = Object.getPrototypeOf(client.unsafe(''))
  if (Object.hasOwn(queries, 'retried')) return
  Object.defineProperty(queries, 'retried', {
    get: () => undefined,
    set(this: PostgresQuery, error: unknown) {
      this.cancelled = true
      this.onRetry(error)
    },
  })
}

/** The data of a COPY is never requested here. Its failure would be an error without a listener, which ends the process. */
export function ignoreCopy(answer: unknown): void {
  if (answer instanceof Stream) answer.on('error', () => {})
}

/** Why an answer must not be used. */
export function faultOf(
  { command, columns, count }: Omit<PostgresAnswer, 'statement'>,
  length: number,
): string | undefined {
  if (!command) return 'an answer without an end'
  const expected = columns?.length ? count : 0
  return expected === null || length === expected ? undefined : `${length} rows instead of ${expected}`
}

function mismatchOf(answer: PostgresAnswer, query: PostgresQuery, text: string): string | undefined {
  const isOwn = answer.statement === query.statement && query.statement?.string === text
  if (!isOwn) return 'the answer to another statement'
  // PostgreSQL answers so, without an error, when the transaction had failed.
  return text === 'commit' && answer.command !== 'COMMIT' ? 'a rollback instead of a commit' : undefined
}

const isCoded = (error: unknown) => error instanceof Error && 'code' in error
