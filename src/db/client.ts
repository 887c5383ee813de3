import { entityKind, SQL } from 'drizzle-orm'
import { NoopCache } from 'drizzle-orm/cache/core'
import { NoopLogger } from 'drizzle-orm/logger'
import { type PgDatabase, PgDialect, type PreparedQueryConfig } from 'drizzle-orm/pg-core'
import {
  PgProxyTransaction,
  PgRemoteDatabase,
  type PgRemoteQueryResultHKT,
  PgRemoteSession,
  PreparedQuery,
  type RemoteCallback,
} from 'drizzle-orm/pg-proxy'
import { type Query as CompiledQuery, Placeholder } from 'drizzle-orm/sql/sql'
import type { Driver, Query, Rows } from './driver.ts'

/** A Drizzle database, or a transaction of one: the same type and queries on PostgreSQL and on the embedded one. */
export type Db = PgDatabase<PgRemoteQueryResultHKT, Schema>

type Schema = Record<string, never>

/** Where the data is: an address of a PostgreSQL, or a folder for the embedded one. */
export type DatabaseSettings =
  | { kind: 'postgres'; url: string; poolSize: number; prepare: boolean }
  | { kind: 'embedded'; dataDir: string }

/** Opens the database that the settings name. Only the driver that is needed is loaded. */
export async function openDriver(settings: DatabaseSettings): Promise<Driver> {
  if (settings.kind === 'postgres') {
    const { openPostgres } = await import('./postgres.ts')
    return openPostgres(settings)
  }
  const { openEmbedded } = await import('./embedded.ts')
  return openEmbedded(settings)
}

/**
 * Drizzle on top of a driver. All of Drizzle's query builder works; this is what it means here:
 *
 * - `await db.select(…)…` sends the statement with its values, so that PostgreSQL plans it for them.
 * - `db.select(…)….prepare('read_task')` makes the text once and keeps it in the server (`QueryOptions.prepare`): for
 *   the few hot statements. Values come by name: `placeholder('id')` in the query, `.execute({ id })` for each run. Each
 *   place where a placeholder stands is a value of its own: give it a type (`::uuid`), or say it once in a CTE.
 * - Rows are objects with inferred types. SQL that the builder has no words for is a CTE of its own
 *   (`db.$with('found', { id: tasks.id }).as(sql`…`)`), or a whole statement: `db.execute<Row>(sql`…`)` and
 *   `prepareSql<Row>(db, name, sql`…`)`, whose rows have the names of their columns.
 * - `db.transaction(async tx => { await tx.update(…) … })` is `Driver.transaction`: for what is rare.
 *
 * Errors are the driver's own: `AppError('unavailable')`, or PostgreSQL's with its SQLSTATE (constraint.ts).
 */
export function createDb({ query, transaction }: Pick<Driver, 'query' | 'transaction'>): Db {
  return new PgRemoteDatabase(dialect, new Session(query, transaction), undefined)
}

/**
 * A whole statement of raw SQL, made once and kept in the server, as `.prepare(name)` does for the builder. Rows have
 * the names of the statement's columns; cells are as the driver returns them (`parsers` in driver.ts): a moment is
 * PostgreSQL's text.
 */
export function prepareSql<Row extends object>(db: Db, name: string, query: SQL) {
  type Rows = PreparedQueryConfig & { execute: Row[] }
  return db._.session.prepareQuery<Rows>(dialect.sqlToQuery(query), undefined, name, false)
}

const dialect = new PgDialect()
const noLogger = new NoopLogger()
const noCache = new NoopCache()

/** Drizzle's session for drivers that are a function (pg-proxy), with prepared statements and transactions. */
class Session extends PgRemoteSession<Schema, Schema> {
  static override readonly [entityKind] = 'TodoApiSession'
  readonly #query: Query
  readonly #transaction: Driver['transaction']

  constructor(query: Query, transaction: Driver['transaction']) {
    super(send(query, false), dialect, undefined)
    this.#query = query
    this.#transaction = transaction
  }

  /** Only what `.prepare(name)` made has a name. */
  override prepareQuery<T extends PreparedQueryConfig>(
    ...[query, fields, name, isArray, mapRows, metadata, cache]: PrepareQueryArguments
  ): PreparedQuery<T> {
    const client = send(this.#query, name !== undefined)
    const { sql, params, typings } = query
    return new Prepared<T>(
      client,
      sql,
      params,
      typings,
      ...[noLogger, noCache, metadata, cache, fields, isArray, mapRows],
    )
  }

  override transaction<T>(work: (tx: PgProxyTransaction<Schema, Schema>) => Promise<T>): Promise<T> {
    return this.#transaction(query => {
      const session = new Session(query, this.#transaction)
      return work(new PgProxyTransaction<Schema, Schema>(dialect, session, undefined))
    })
  }
}

type PrepareQueryArguments = Parameters<PgRemoteSession<Schema, Schema>['prepareQuery']>

class Prepared<T extends PreparedQueryConfig> extends PreparedQuery<T> {
  static override readonly [entityKind] = 'TodoApiPreparedQuery'

  /** Drizzle's own puts the text and the values, secrets too, into the message of an error that wraps the driver's. */
  queryWithCache<R>(_text: string, _values: unknown[], run: () => Promise<R>): Promise<R> {
    return run()
  }
}

function send(query: Query, prepare: boolean): RemoteCallback {
  return async (text, values, method) => {
    const columns = method === 'execute'
    const rows = await query(text, values, { prepare, columns })
    return { rows: columns ? named(rows) : rows }
  }
}

/** Rows as objects. Drizzle does this itself for queries whose fields it knows. */
function named(rows: Rows): Record<string, unknown>[] {
  const names = rows.columns?.map(({ name }) => name) ?? []
  return rows.map(row => Object.fromEntries(names.map((name, i) => [name, row[i]])))
}

type Values = Record<string, unknown>

/**
 * Turns a query into a function. Its text is made at the first call and never again, which matters on the paths that
 * every request takes. Values come by the names of the query's placeholders; rows come as arrays in the order of the
 * select list. Its last callers move to `.prepare(name)` (see `createDb`); then it goes.
 */
export function statement<Row extends unknown[] = unknown[]>(
  driver: Driver,
  query: SQL | { toSQL(): CompiledQuery },
) {
  let compiled: Compiled | undefined
  return (values: Values): Promise<Row[]> => {
    compiled ??= compile(query)
    const { text, params, names } = compiled
    return driver.query(
      text,
      names.map((name, i) => (name === undefined ? params[i] : values[name])),
      { prepare: true },
    ) as Promise<Row[]>
  }
}

interface Compiled {
  text: string
  params: unknown[]
  /** The names of those params that are placeholders, at their places. */
  names: (string | undefined)[]
}

/** Drizzle gives a placeholder a number wherever it stands. Here each name has one, so that its value travels once. */
function compile(query: SQL | { toSQL(): CompiledQuery }): Compiled {
  const made = query instanceof SQL ? new PgDialect().sqlToQuery(query) : query.toSQL()
  const params: unknown[] = []
  const names: (string | undefined)[] = []
  const numbers = made.params.map(param => {
    const name = param instanceof Placeholder ? (param.name as string) : undefined
    const known = name === undefined ? -1 : names.indexOf(name)
    if (known >= 0) return known + 1
    names.push(name)
    return params.push(param)
  })
  return { text: made.sql.replace(/\$(\d+)/g, (_, n) => `$${numbers[n - 1]}`), params, names }
}

/** So many shapes are remembered; the one that was not used for longest goes first. */
const shapesMax = 128

/** Makes a statement for each shape of a question, by the text of the shape; no client can fill the memory with them. */
export function byShape<Shape, Run>(make: (shape: Shape) => Run) {
  const known = new Map<string, Run>()
  return (shape: Shape, text: string): Run => {
    const run = known.get(text) ?? make(shape)
    // The order of a Map is that of insertion: put back at the end.
    known.delete(text)
    known.set(text, run)
    if (known.size > shapesMax) known.delete(known.keys().next().value!)
    return run
  }
}
