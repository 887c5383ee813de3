import type { DedicatedConnection, Driver } from './driver.ts'
import { readMigrations } from './migrations.macro.ts' with { type: 'macro' }
import type { Migration } from './migrations.macro.ts'
import { databaseError } from './pg-error.ts'

/** The migrations in this program, oldest first. */
export const migrations: readonly Migration[] = readMigrations()

/** A migration that could not be applied; the database is as it was before it. */
export class MigrationError extends Error {
  override readonly name = 'MigrationError'
  constructor(tag: string, cause: unknown) {
    super(`Migration ${tag} failed: ${cause instanceof Error ? cause.message : cause}`, { cause })
  }
}

/** The number of our advisory lock, unlikely to be used by other programs: the bytes of "todo-api". */
const lockKey = '8389754676633104489'

/**
 * Applies the pending migrations, each in a transaction of its own, and returns their tags. The lock is held for a
 * transaction, so any number of copies may start at once, also through a transaction-pooling proxy. When none is pending
 * it only reads, so that a role without the right to create tables can serve.
 * Throws `MigrationError`, or the driver's error when the database is away.
 */
export async function migrate(driver: Driver, wanted = migrations): Promise<string[]> {
  const [first] = await pendingMigrations(driver, wanted)
  if (first === undefined) return []
  return driver.dedicatedConnection(async connection => {
    const applied: string[] = []
    while (true) {
      const tag = await applyNext(connection, wanted)
      if (tag === undefined) return applied
      applied.push(tag)
    }
  })
}

async function applyNext(
  connection: DedicatedConnection,
  wanted: readonly Migration[],
): Promise<string | undefined> {
  // The role may have limits. Through a proxy only `set local` removes them reliably.
  await connection.execute('begin; set local statement_timeout = 0; set local lock_timeout = 0')
  await connection.execute(`select pg_advisory_xact_lock(${lockKey})`)
  await connection.execute(`
    create schema if not exists drizzle;
    create table if not exists drizzle.__drizzle_migrations (id serial primary key, hash text not null, created_at bigint)
  `)
  const done = new Set((await connection.execute(journal)).map(([when]) => Number(when)))
  const next = wanted.find(migration => !done.has(migration.when))
  if (!next) {
    await connection.execute('commit')
    return undefined
  }
  try {
    await connection.execute(next.sql)
    await connection.execute(
      `insert into drizzle.__drizzle_migrations (hash, created_at) values ('${next.hash}', ${next.when}); commit`,
    )
  } catch (error) {
    // For a connection that is used again; closing it would roll back as well.
    await connection.execute('rollback').catch(() => {})
    throw databaseError(error) ? new MigrationError(next.tag, error) : error
  }
  return next.tag
}

const journal = 'select created_at from drizzle.__drizzle_migrations'

/**
 * The migrations that the database has, by `when`; asks the database each time. Throws when its first one is not ours:
 * then no migration of ours fits on what is there.
 */
export async function appliedMigrations(driver: Driver, wanted = migrations): Promise<Set<number>> {
  try {
    const done = new Set((await driver.query(journal, [])).map(([when]) => Number(when)))
    if (done.size > 0 && !done.has(wanted[0]!.when)) throw new Error(otherHistory)
    return done
  } catch (error) {
    const undefinedTable = '42P01'
    if (databaseError(error)?.code !== undefinedTable) throw error
    return new Set()
  }
}

/** How many of the applied migrations are of a newer program. */
export const countNewer = (applied: Set<number>): number =>
  applied.difference(new Set(migrations.map(({ when }) => when))).size

const otherHistory =
  'this database is from before the first release, and no migration leads here from it: ' +
  'export it with the todo-api that made it (todo-api export FILE), then import FILE into a new database'

/** The tags of the migrations that the database lacks; asks the database each time. */
export async function pendingMigrations(driver: Driver, wanted = migrations): Promise<string[]> {
  const done = await appliedMigrations(driver, wanted)
  return wanted.filter(migration => !done.has(migration.when)).map(migration => migration.tag)
}
