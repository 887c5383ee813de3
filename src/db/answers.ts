import { Stream } from 'node:stream'
import type postgres from 'postgres'
import type { QueryOptions, Rows } from './driver.ts'

/** A query of postgres.js 3.4.9, with the fields of its own (src/query.js, src/connection.js) that are watched here. */
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
export type PostgresClient = ReturnType<typeof postgres>

interface Connection {
  client: PostgresClient
  isServerError: (error: unknown) => error is postgres.PostgresError
  /** Ends the connection before another byte is read or written. */
  destroy: () => void
  /** Ends it when what was sent is answered. */
  retire: () => void
}

/** A statement with its values as postgres.js takes them. */
export interface Statement {
  text: string
  values: () => postgres.ParameterOrJSON<never>[]
  options: QueryOptions
}

/** The protocol counts values in 16 bits. */
const valuesMax = 65_533

/**
 * Sends statements over a connection of postgres.js so that an answer reaches the caller of its own statement, or the
 * connection ends and every caller on it gets an error.
 *
 * postgres.js assigns answers by their order alone, and loses that order when it sends a statement again by itself, when
 * a value cannot be written and when a statement fails in the middle of its rows (docs/decisions/0003-one-statement.md
 * lists each way). So the order is kept here a second time, each statement collects its own rows, and whatever does
 * not fit ends the connection: an answer out of turn, one to another text, one without an end, or with another number
 * of rows than the server counted; and every failure that is not the server's.
 */
export function createAnswers({ client, isServerError, destroy, retire }: Connection) {
  trapRetries(client)
  const asked: { query: PostgresQuery; reject: (error: unknown) => void }[] = []
  let stopped: unknown

  function stop(cause: unknown) {
    if (stopped) return
    stopped = isCoded(cause) ? cause : connectionLost(cause)
    destroy()
    for (const { reject } of asked.splice(0)) reject(stopped)
  }

  function ask(statement: Statement, isSecondTime = false): Promise<Rows> {
    if (stopped) return Promise.reject(stopped)
    const { text, options } = statement
    const values = statement.values()
    if (values.length > valuesMax) return Promise.reject(new RangeError('A statement has too many values'))
    return new Promise((resolve, reject) => {
      const rows: Rows = []
      const query = client
        .unsafe(text, values, {
          prepare: options.prepare === true,
          simple: false,
        } as postgres.UnsafeQueryOptions)
        .values() as unknown as PostgresQuery
      asked.push({ query, reject })

      const settle = (fault: string | undefined, tell: () => void) => {
        if (stopped) return
        const isInTurn = asked[0]?.query === query
        if (fault || !isInTurn) return stop(new Error(`postgres.js: ${fault ?? 'an answer out of turn'}`))
        asked.shift()
        tell()
      }
      query.resolve = answer => {
        // The data of a COPY, which nothing here asks for. Its failure would be an error without a listener.
        if (answer instanceof Stream) answer.on('error', () => {})
        settle(faultOf(answer, rows.length) ?? strangerOf(answer, query, text), () => {
          // It changes the shape of the list, which takes a twentieth of a statement's time.
          if (options.columns) rows.columns = answer.columns ?? []
          resolve(rows)
        })
      }
      query.reject = error => {
        if (!isServerError(error)) return stop(error)
        settle(undefined, () => {
          const isOfTheSchema = /^(0A000|26|42)/.test(error.code)
          if (!isOfTheSchema || !(query.prepared || isSecondTime)) return reject(error)
          // What was right when it was prepared is wrong now: the schema changed. A new connection knows it.
          retire()
          reject(connectionLost(error))
        })
      }
      // The prepared statement no longer fits. The server has executed nothing, so it is asked once more, in its turn.
      // postgres.js would send it between what was sent since, with its values encoded twice.
      query.onRetry = error =>
        settle(undefined, () =>
          isSecondTime ? reject(connectionLost(error)) : ask(statement, true).then(resolve, reject),
        )
      // A list of our own: postgres.js continues its list where a failed statement stopped.
      query.forEach(row => void rows.push(row))
    })
  }

  return { ask }
}

/**
 * postgres.js notes in `retried` why it is about to send a statement again. A statement that is cancelled is not sent.
 * The trap stands on the class, which is not exported, because it costs nothing there.
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

/** What makes an answer unfit to be used. */
export function faultOf(
  { command, columns, count }: Omit<PostgresAnswer, 'statement'>,
  length: number,
): string | undefined {
  if (!command) return 'an answer without an end'
  const expected = columns?.length ? count : 0
  return expected === null || length === expected ? undefined : `${length} rows instead of ${expected}`
}

function strangerOf({ statement }: PostgresAnswer, query: PostgresQuery, text: string): string | undefined {
  const isOwn = statement === query.statement && query.statement?.string === text
  return isOwn ? undefined : 'the answer to another statement'
}

/** An error of a connection: nothing is known of what was under way on it. */
export function connectionLost(cause?: unknown): Error {
  return Object.assign(new Error('the connection was lost', { cause }), { code: 'CONNECTION_CLOSED' })
}

const isCoded = (error: unknown) => error instanceof Error && 'code' in error
