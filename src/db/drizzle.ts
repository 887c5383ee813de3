import {
  type BuildQueryConfig,
  entityKind,
  fillPlaceholders,
  is,
  Placeholder,
  placeholder,
  type SQL,
  type Query as SqlQuery,
  sql,
} from 'drizzle-orm'
import {
  PgDatabase,
  PgDialect,
  PgPreparedQuery,
  PgSession,
  type PreparedQueryConfig,
  type SelectedFieldsOrdered,
} from 'drizzle-orm/pg-core'
import { PgProxyTransaction, type PgRemoteQueryResultHKT } from 'drizzle-orm/pg-proxy'
import * as utilities from 'drizzle-orm/utils'
import type { Driver, Query, Rows } from './driver.ts'

/** A Drizzle database, or a transaction of one: the same type and queries on PostgreSQL and on the embedded one. */
export type Db = PgDatabase<PgRemoteQueryResultHKT, Schema>

type Schema = Record<string, never>

/**
 * Drizzle on top of a driver. All of Drizzle's query builder works; this is what it means here:
 *
 * - `await db.select(…)…` sends the statement with its values, so that PostgreSQL plans it for them.
 * - `db.select(…)….prepare('read_task')` makes the text once and keeps it in the server (`QueryOptions.prepare`): for
 *   the few hot statements. Values come by name: `parameter('id', 'uuid')` in the query, `.execute({ id })` for each run.
 * - Rows are objects with inferred types. SQL that the builder has no words for is a CTE of its own
 *   (`db.$with('found', { id: tasks.id }).as(sql`…`)`), or a whole statement: `db.execute<Row>(sql`…`)` and
 *   `prepareSql<Row>(db, sql`…`)`, whose rows have the names of their columns.
 * - `db.transaction(async tx => { await tx.update(…) … })` is `Driver.transaction`: for what is rare.
 *
 * Errors are the driver's own: `AppError('unavailable')`, or PostgreSQL's with its SQLSTATE (pg-error.ts).
 */
export function createDb(driver: Connections): Db {
  return new PgDatabase(dialect, new Session(driver), undefined)
}

type Connections = Pick<Driver, 'query' | 'transaction'>

/**
 * A whole statement of raw SQL, made once and kept in the server, as `.prepare(name)` does for the builder. Rows have
 * the names of the statement's columns; cells are as the driver returns them (`parsers` in driver.ts): a moment is
 * PostgreSQL's text.
 */
export function prepareSql<Row extends object>(db: Db, query: SQL) {
  type Rows = PreparedQueryConfig & { execute: Row[] }
  return db._.session.prepareQuery<Rows>(dialect.sqlToQuery(query), undefined, 'kept', false)
}

/** A value of a prepared statement, by name; the type keeps PostgreSQL from guessing. */
export const parameter = (name: string, type: string): SQL => sql`${placeholder(name)}::${sql.raw(type)}`

/** Drizzle's, but a placeholder that stands in several places is one parameter. */
class Dialect extends PgDialect {
  static override readonly [entityKind] = 'TodoApiDialect'

  override sqlToQuery(query: SQL) {
    const params: unknown[] = []
    const numbers = new Map<string, number>()
    function escapeParam(_: number, value: unknown) {
      if (!is(value, Placeholder)) return `$${params.push(value)}`
      const number = numbers.get(value.name) ?? params.push(value)
      numbers.set(value.name, number)
      return `$${number}`
    }
    const { escapeName, escapeString } = this
    const config = { ...this, escapeName, escapeString, escapeParam } as unknown as BuildQueryConfig
    return { ...query.toQuery(config), params }
  }
}

const dialect = new Dialect()

/** Drizzle on a driver, with prepared statements and transactions. */
class Session extends PgSession<PgRemoteQueryResultHKT, Schema, Schema> {
  static override readonly [entityKind] = 'TodoApiSession'

  constructor(private readonly driver: Connections) {
    super(dialect)
  }

  /** Only what `.prepare(name)` made has a name. */
  override prepareQuery<T extends PreparedQueryConfig>(
    query: SqlQuery,
    fields: SelectedFieldsOrdered | undefined,
    name: string | undefined,
  ): Prepared<T> {
    return new Prepared<T>(this.driver.query, query, fields, name !== undefined)
  }

  override transaction<T>(work: (tx: PgProxyTransaction<Schema, Schema>) => Promise<T>): Promise<T> {
    const { transaction } = this.driver
    return transaction(query => {
      const session = new Session({ query, transaction })
      return work(new PgProxyTransaction<Schema, Schema>(dialect, session, undefined))
    })
  }
}

/**
 * Not that of pg-proxy: it puts the text and the values, secrets too, into the message of an error that wraps the driver's,
 * and its promises for a cache and a tracer cost about a microsecond for each statement.
 */
class Prepared<T extends PreparedQueryConfig> extends PgPreparedQuery<T> {
  static override readonly [entityKind] = 'TodoApiPreparedQuery'
  /** Set by the builder: which tables of a join always have a row. */
  declare joinsNotNullableMap?: Record<string, boolean>

  constructor(
    private readonly run: Query,
    query: SqlQuery,
    private readonly fields: SelectedFieldsOrdered | undefined,
    private readonly isKept: boolean,
  ) {
    super(query, undefined, undefined)
  }

  override async execute(values: Record<string, unknown> = {}): Promise<T['execute']> {
    const { run, fields, isKept } = this
    const { sql, params } = this.query
    const rows = await run(sql, fillPlaceholders(params, values), { prepare: isKept, columns: !fields })
    return fields ? rows.map(row => mapResultRow(fields, row, this.joinsNotNullableMap)) : named(rows)
  }
}

/** Drizzle's drivers all use this function; it is exported without a type. */
const { mapResultRow } = utilities as unknown as {
  mapResultRow(
    fields: SelectedFieldsOrdered,
    row: unknown[],
    joinsNotNullableMap?: Record<string, boolean>,
  ): Record<string, unknown>
}

/** Rows as objects, by the names of their columns. */
function named(rows: Rows): Record<string, unknown>[] {
  const names = rows.columns?.map(({ name }) => name) ?? []
  return rows.map(row => {
    const object: Record<string, unknown> = {}
    for (const [i, name] of names.entries()) object[name] = row[i]
    return object
  })
}
