import { join } from 'node:path'
import type { Config } from '../config/config.ts'
import { clusterName, holdsDatabase } from '../config/data-dir.ts'
import type { Driver } from '../db/driver.ts'
import { createDb, type Db } from '../db/drizzle.ts'
import { migrate, migrations } from '../db/migrator.ts'
import { openDriver } from '../db/open-driver.ts'
import { distributedTables } from '../modules/table-registry.ts'
import { removedAtEnd } from './atomic-file.ts'
import { claimCopy, connectToService, newCopy } from './control-socket.ts'
import { type CommandDriver, operationsOn } from './operations.ts'
import { readConfig } from './read-config.ts'
import { say } from './terminal.ts'

/** Opens the database of the settings: through the service when that has the embedded one. */
export async function openDatabase({ database }: Config): Promise<CommandDriver> {
  const service = database.kind === 'embedded' ? await connectToService(database.dataDir) : undefined
  if (service) return service
  const driver = await openDriver(database)
  return { ...driver, ...operationsOn(createDb(driver)) }
}

/** Applies pending migrations and returns their tags. */
export const applyMigrations = (driver: Driver) => migrate(driver, distributedTables, migrations, sayItWaits)

export const sayItWaits = () =>
  say('waiting for a lock: another session uses the tables (pg_locks, pg_stat_activity)')

/** Whether the embedded database does not exist yet. */
export const isAbsent = ({ database }: Config): boolean =>
  database.kind === 'embedded' && !holdsDatabase(database.dataDir)

/** Runs a command on the database of the settings. Throws an Error with one line if it does not exist. */
export async function withDatabase(work: (db: Db, driver: CommandDriver) => Promise<void>): Promise<void> {
  const config = readConfig()
  if (isAbsent(config)) {
    throw new Error(
      `there is no database in DATA_DIR ${config.dataDir}; use the service's DATA_DIR or DATABASE_URL`,
    )
  }
  await using driver = await openDatabase(config)
  await work(createDb(driver), driver)
}

/**
 * Runs a command that reads all of the database: a copy of the embedded one of a running service, so that requests do not
 * wait.
 */
export async function withSnapshot(work: (db: Db, driver: Driver) => Promise<void>): Promise<void> {
  const { database } = readConfig()
  const service = database.kind === 'embedded' && (await connectToService(database.dataDir))
  if (!service) return withDatabase(work)
  using folder = temporaryFolder(database.dataDir)
  await service.copyTo!(join(folder.path, clusterName))
  folder.claim()
  const { withUnpacked } = await import('./backup/read-through.ts')
  await withUnpacked(folder.path, 'the copy', driver => work(createDb(driver), driver))
}

/** A folder in DATA_DIR, which is not made yet. For `using`: it is removed at the end. */
export function temporaryFolder(dataDir: string) {
  const folder = removedAtEnd(newCopy(dataDir))
  let lock: ReturnType<typeof claimCopy> | undefined
  return {
    path: folder.path,
    /** To be called once it is made: should the process be killed, the service removes it. */
    claim() {
      lock = claimCopy(folder.path)
    },
    [Symbol.dispose]() {
      folder[Symbol.dispose]()
      lock?.close()
    },
  }
}
