import type { DatabaseStats } from '../telemetry/observer.ts'

/**
 * What both databases offer the rest of the program. Requests read and write in single statements, which need no
 * transaction; `transaction` is for what is rare (docs/decisions/0003-one-statement.md). Queries are Drizzle's
 * (`createDb` in drizzle.ts); only the connections themselves and commands that inspect a database call `query`.
 */
export interface Driver {
  readonly kind: 'postgres' | 'embedded'
  query: Query
  /**
   * Runs `work` in a transaction on a connection that is used for nothing else meanwhile, and commits when it resolves. If
   * a prepared statement no longer fits the schema, all is rolled back, and `work` runs once more. When `work` or one of
   * its statements fails, everything is rolled back and that error is thrown. A lost connection, a lost commit and a
   * transaction that is not over within 2 s are `AppError('unavailable')`; it may then have been committed only if the
   * commit itself was lost. The query function runs one statement at a time, and rejects as soon as the transaction is
   * over, so a late statement never runs elsewhere.
   */
  transaction<T>(work: (query: Query) => Promise<T>): Promise<T>
  /** Opens a connection for the caller alone, as migrations need: several statements, no deadline. */
  dedicatedConnection<T>(work: (connection: DedicatedConnection) => Promise<T>): Promise<T>
  /**
   * Embedded only: copies the database's folder while statements go on. The copy holds all that was answered before the
   * call, is of one moment, and opens as after a crash. Throws an Error with one line when space is short.
   */
  copyTo?(folder: string): Promise<void>
  /** Embedded only: resolves with the reason when the database cannot go on; the process should end then. */
  readonly lost?: Promise<string>
  /** Answers what is under way (at most `seconds`), then closes the database. */
  close(seconds?: number): Promise<void>
  /** How its connections are doing. */
  stats?(): DatabaseStats
}

/**
 * Runs one statement. Throws `AppError('unavailable')` when the database cannot answer in time, else the driver's
 * error, with the SQLSTATE in `code`.
 */
export type Query = (text: string, values: readonly unknown[], options?: QueryOptions) => Promise<Rows>

export interface QueryOptions {
  /**
   * Keeps the statement in the server, parsed, and soon with a generic plan: for the few texts that run all the time,
   * whose plan does not depend on the values. Otherwise PostgreSQL plans at each call, knowing the values.
   */
  prepare?: boolean
  /** Makes the rows know the names of their columns. */
  columns?: boolean
}

/** A row is an array in the order of the select list (`parsers` says how a cell arrives). */
export interface Rows extends Array<unknown[]> {
  /** The names, where `QueryOptions.columns` asked for them. */
  columns?: readonly { name: string }[] | undefined
}

/** One connection that belongs to the caller. */
export interface DedicatedConnection {
  /** Runs a script of one or several statements without values; returns the rows of the last one. */
  execute(script: string): Promise<unknown[][]>
}

/** PostgreSQL's type numbers (`select oid from pg_type`) that need the same look on both drivers. */
const oid = { int8: 20, textArray: 1009, timestamptz: 1184 }

const text = (value: string) => value

/**
 * How a cell arrives, by type number. Everything else is as the drivers agree: text, number, boolean, JSON, null.
 * `int8` is a number: our counters stay far below 2^53. Times stay PostgreSQL's text, which keeps microseconds.
 */
export const parsers: Record<number, (value: string) => unknown> = {
  [oid.int8]: Number,
  [oid.timestamptz]: text,
  [oid.textArray]: parseTextArray,
}

/** How a value leaves, by the type that PostgreSQL expects. JSON values are passed as objects, lists of text as arrays. */
export const serializers: Record<number, (value: never) => string> = {
  [oid.timestamptz]: text,
  [oid.textArray]: formatTextArray,
}

/**
 * Reads PostgreSQL's text form of `text[]` (one dimension, no NULLs: our columns allow neither). Drizzle's `parsePgArray` loses
 * backslashes, and takes four times as long.
 */
function parseTextArray(value: string): string[] {
  const items: string[] = []
  const pattern = /"((?:[^"\\]|\\.)*)"|([^,{}"]+)/g
  for (const [, quoted, plain] of value.matchAll(pattern)) {
    items.push(quoted === undefined ? plain! : quoted.replace(/\\(.)/g, '$1'))
  }
  return items
}

/** Writes the text form of `text[]`, every item quoted. Drizzle hands over the text form itself. */
function formatTextArray(items: readonly string[] | string): string {
  if (typeof items === 'string') return items
  return `{${items.map(item => `"${item.replace(/["\\]/g, '\\$&')}"`).join(',')}}`
}
