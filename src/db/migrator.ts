import { forDistributed, type UserTable, undistributedTables } from './distribute.ts'
import type { DedicatedConnection, Driver } from './driver.ts'
import { untilUnlocked } from './lock-wait.ts'
import { readMigrations } from './migrations.macro.ts' with { type: 'macro' }
import type { Migration } from './migrations.macro.ts'
import { databaseError, isSchemaMissing } from './pg-error.ts'

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
 * it only reads, so that a role without the right to create tables can serve. `userTables` are those that may be
 * distributed. `onWait` is called while another session holds a lock that a migration needs. Throws `MigrationError`, the
 * driver's error when the database is away, or an Error with one line when an empty database is not in UTF8.
 */
export async function migrate(
  driver: Driver,
  userTables: readonly UserTable[],
  wanted = migrations,
  onWait?: (error: unknown) => void,
): Promise<string[]> {
  const { pending } = await migrationState(driver, wanted)
  if (pending.length === 0) return []
  if (pending.length === wanted.length) await requireUtf8(driver)
  const distributed = (await undistributedTables(driver, userTables)) && userTables
  return driver.dedicatedConnection(async connection => {
    const applied: string[] = []
    while (true) {
      const tag = await untilUnlocked(wait => applyNext(connection, wanted, distributed, wait), onWait)
      if (tag === undefined) return applied
      applied.push(tag)
    }
  })
}

/** How to make a database that holds every text. */
export const makeUtf8Database = "make a database with: create database … encoding 'UTF8' template template0"

/** Others refuse or miscount characters, and keep their encoding for good. */
async function requireUtf8(driver: Driver): Promise<void> {
  const [row] = await driver.query("select current_setting('server_encoding')", [])
  const encoding = row![0]
  if (encoding !== 'UTF8') throw new Error(`the database is in ${encoding}, not UTF8: ${makeUtf8Database}`)
}

/** PostgreSQL 17 and later have that limit. */
export const withoutTransactionTimeout =
  "select set_config(name, '0', true) from pg_settings where name = 'transaction_timeout'"

async function applyNext(
  connection: DedicatedConnection,
  wanted: readonly Migration[],
  distributed: readonly UserTable[] | undefined,
  lockWait: string,
): Promise<string | undefined> {
  // The role may have other limits. Through a proxy only `set local` removes them reliably.
  // Our lock is held by other copies alone.
  await connection.execute(
    `begin; set local statement_timeout = 0; set local lock_timeout = 0; ${withoutTransactionTimeout};
    set local idle_in_transaction_session_timeout = 10000`,
  )
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
  const statements = next.sql.split('--> statement-breakpoint')
  const possible = distributed ? forDistributed(statements, distributed) : statements
  try {
    await connection.execute(lockWait)
    for (const statement of possible) await connection.execute(statement)
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

const schemaOf = (table: string) => `(select relnamespace from pg_class where oid = to_regclass('${table}'))`

/**
 * Whether a session sees our tables, as SQL: they are in one schema, and another program may have a `users` in one that comes
 * first in the search path.
 */
export const seesTables = `coalesce(${schemaOf('users')} = ${schemaOf('user_versions')}, false)`

const journal = `
  select created_at, obj_description('drizzle.__drizzle_migrations'::regclass), ${seesTables}
  from drizzle.__drizzle_migrations`

/**
 * How the database and this program differ: the tags of the migrations that the database lacks, and how many it has of a
 * newer program. Asks the database each time. Throws an Error with one line when this program cannot use the database: its
 * first migration is not ours, the session does not see the tables, or a migration of a newer program dropped what ours
 * reads. Such a migration says so in the comment of the journal:
 * `comment on table drizzle.__drizzle_migrations is 'needs 0007_drop_position'`.
 */
export async function migrationState(driver: Driver, wanted = migrations) {
  const rows = await journalOf(driver)
  const applied = new Set(rows.map(([when]) => Number(when)))
  if (applied.size > 0 && !applied.has(wanted[0]!.when)) throw new Error(otherHistory)
  const [, comment, seesTables] = rows[0] ?? []
  if (seesTables === false) throw new Error(unseen)
  const needed = /^needs (\w+)$/.exec(`${comment}`)?.[1]
  if (needed !== undefined && !wanted.some(({ tag }) => tag === needed)) {
    throw new Error(`this database needs a todo-api that has the migration ${needed}: upgrade this one`)
  }
  const pending = wanted.filter(({ when }) => !applied.has(when)).map(({ tag }) => tag)
  return { pending, newer: applied.size - (wanted.length - pending.length) }
}

async function journalOf(driver: Driver): Promise<readonly unknown[][]> {
  try {
    return await driver.query(journal, [])
  } catch (error) {
    if (!isSchemaMissing(error)) throw error
    return []
  }
}

const unseen =
  'the tables of todo-api are in no schema of the search_path, or behind those of another program: name theirs first, for the role or in DATABASE_URL'

const otherHistory =
  'this database is from before the first release, and no migration leads here from it: ' +
  'export it with the todo-api that made it (todo-api export FILE), then import FILE into a new database'
