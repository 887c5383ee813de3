import { SQL } from 'drizzle-orm'
import { PgDialect } from 'drizzle-orm/pg-core'
import { drizzle, type PgRemoteDatabase } from 'drizzle-orm/pg-proxy'
import { Placeholder, type Query } from 'drizzle-orm/sql/sql'
import type { Driver } from './driver.ts'

/** A Drizzle database: the same type and the same queries on PostgreSQL and on the embedded one. */
export type Db = PgRemoteDatabase<Record<string, never>>

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

/** Drizzle on top of a driver. `db.transaction()` does not exist there, on purpose (see `Driver`). */
export function createDb(driver: Driver): Db {
  return drizzle(async (text, values) => ({ rows: await driver.query(text, values) }))
}

type Values = Record<string, unknown>

/**
 * Turns a query into a function. Its text is made at the first call and never again, which matters on the paths that
 * every request takes. Values come by the names of the query's placeholders; rows come as arrays in the order of the
 * select list. Anything that is called less often is ordinary Drizzle.
 */
export function statement<Row extends unknown[] = unknown[]>(
  driver: Driver,
  query: SQL | { toSQL(): Query },
) {
  let compiled: Compiled | undefined
  return (values: Values): Promise<Row[]> => {
    compiled ??= compile(query)
    const { text, params, names } = compiled
    return driver.query(
      text,
      names.map((name, i) => (name === undefined ? params[i] : values[name])),
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
function compile(query: SQL | { toSQL(): Query }): Compiled {
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
