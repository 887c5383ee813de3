import type { DedicatedConnection, Driver } from './driver.ts'
import { untilUnlocked } from './lock-wait.ts'

/** A table whose rows belong to one user each, and the column that names the user. */
export interface UserTable {
  name: string
  column: string
}

/** Whether Citus is installed in the database. */
const hasCitus = async (driver: Pick<Driver, 'query'>) => {
  const [row] = await driver.query("select to_regclass('pg_catalog.pg_dist_partition') is not null", [])
  return row![0] === true
}

/**
 * The tables that are on the coordinator alone while others are distributed: rows of users that do not go where the
 * user's other rows are. `undefined` where no table is distributed, as on a PostgreSQL without Citus.
 */
export async function undistributedTables(driver: Pick<Driver, 'query'>, tables: readonly UserTable[]) {
  if (!(await hasCitus(driver))) return undefined
  const missing = await undistributed(text => driver.query(text, []), tables)
  return missing.length < tables.length ? missing.map(({ name }) => name) : undefined
}

/**
 * Distributes the tables over the servers of a Citus cluster by user, so that all rows of a user are on one server
 * (docs/decisions/0019-citus.md). Tables that are distributed already stay as they are; foreign keys are dropped and made
 * again, because Citus refuses them from or to a table that is not distributed yet. Returns the names of those that it
 * distributed. `onWait` is called while another session holds one of the locks. Throws an Error with one line where there
 * is no Citus.
 */
export async function distribute(
  driver: Driver,
  tables: readonly UserTable[],
  onWait?: () => void,
): Promise<string[]> {
  if (!(await hasCitus(driver))) {
    throw new Error('there is no Citus here: `create extension citus` on every server first')
  }
  return untilUnlocked(
    wait => driver.dedicatedConnection(connection => distributeOn(connection, tables, wait)),
    onWait,
  )
}

async function distributeOn(
  connection: DedicatedConnection,
  tables: readonly UserTable[],
  lockWait: string,
): Promise<string[]> {
  // The triggers look at rows of one user alone, which are on one server.
  await connection.execute(
    `begin; set local statement_timeout = 0; ${lockWait}; set local citus.enable_unsafe_triggers = on`,
  )
  await connection.execute(`lock table ${tables.map(({ name }) => name).join(', ')} in exclusive mode`)
  const missing = await undistributed(text => connection.execute(text), tables)
  const keys = await foreignKeys(connection, missing)
  for (const [table, name] of keys) await connection.execute(`alter table ${table} drop constraint ${name}`)
  for (const table of missing) await connection.execute(distributeTable(table))
  for (const [table, name, definition] of keys) {
    await connection.execute(`alter table ${table} add constraint ${name} ${definition}`)
  }
  await connection.execute('commit')
  return missing.map(({ name }) => name)
}

/**
 * The statements of a migration for a database whose tables are distributed. A new table is distributed as soon as it is
 * there, or no foreign key could name it. Citus refuses to set the storage of a distributed table's columns; without it
 * long texts are compressed.
 */
export function forDistributed(statements: readonly string[], tables: readonly UserTable[]): string[] {
  const possible = statements.filter(statement => !/\bset storage\b/i.test(statement))
  const distributed = possible.flatMap(statement => {
    const made = tables.find(({ name }) => statement.includes(`CREATE TABLE "${name}"`))
    return made ? [statement, distributeTable(made)] : [statement]
  })
  return ['set local citus.enable_unsafe_triggers = on', ...distributed]
}

const distributeTable = ({ name, column }: UserTable) =>
  `select create_distributed_table('${name}', '${column}')`

async function undistributed(
  ask: (text: string) => Promise<readonly unknown[][]>,
  tables: readonly UserTable[],
): Promise<UserTable[]> {
  const rows = await ask('select logicalrelid::regclass::text from pg_dist_partition')
  const distributed = new Set(rows.map(([name]) => name))
  return tables.filter(({ name }) => !distributed.has(name))
}

/** The foreign keys from or to these tables: table, name, definition. */
const foreignKeys = async (connection: DedicatedConnection, tables: readonly UserTable[]) => {
  const names = tables.map(({ name }) => `'${name}'::regclass`)
  if (names.length === 0) return []
  return connection.execute(`
    select conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid) from pg_constraint
    where contype = 'f' and (conrelid in (${names}) or confrelid in (${names}))`)
}
