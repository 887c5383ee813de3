import { entityKind, type SQL } from 'drizzle-orm'
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
import type { DatabaseSettings } from '../config/config.ts'
import type { Driver, Query, Rows } from './driver.ts'

/** A Drizzle database, or a transaction of one: the same type and queries on PostgreSQL and on the embedded one. */
export type Db = PgDatabase<PgRemoteQueryResultHKT, Schema>

type Schema = Record<string, never>

/** Opens the database that the settings name. Only the driver that is needed is loaded. */
export async function openDriver(settings: DatabaseSettings): Promise<Driver> {
  if (settings.kind === 'postgres') {
    const { openPostgres } = await import('./postgres/postgres.ts')
    return openPostgres(settings)
  }
  const { openEmbedded } = await import('./embedded/embedded.ts')
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
 * Errors are the driver's own: `AppError('unavailable')`, or PostgreSQL's with its SQLSTATE (pg-error.ts).
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
