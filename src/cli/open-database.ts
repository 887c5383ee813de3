import { join } from 'node:path'
import type { Config, DatabaseSettings } from '../config/config.ts'
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
  const service = await serviceOn(database)
  if (service) return service
  const driver = await openDriver(database)
  return { ...driver, ...operationsOn(createDb(driver)) }
}

/** The service that has the embedded database, if one runs. */
const serviceOn = async (database: DatabaseSettings) =>
  database.kind === 'embedded' ? connectToService(database.dataDir) : undefined

/** Applies pending migrations and returns their tags. */
export const applyMigrations = (driver: Driver) => migrate(driver, distributedTables, migrations, sayItWaits)

export const sayItWaits = () =>
  say('waiting for a lock: another session uses the tables (pg_locks, pg_stat_activity)')

/** Whether the embedded database does not exist yet. */
export const isAbsent = ({ database }: Config): boolean =>
  database.kind === 'embedded' && !holdsDatabase(database.dataDir)

/** The settings of a command that needs a database. Throws an Error with one line if it does not exist. */
function readExisting(): Config {
  const config = readConfig()
  if (!isAbsent(config)) return config
  throw new Error(
    `there is no database in DATA_DIR ${config.dataDir}; use the service's DATA_DIR or DATABASE_URL`,
  )
}

/** Runs a command on the database of the settings. Throws as `readExisting` does. */
export async function withDatabase(work: (db: Db, driver: CommandDriver) => Promise<void>): Promise<void> {
  await using driver = await openDatabase(readExisting())
  await work(createDb(driver), driver)
}

/**
 * Runs a command that reads all of the database: a copy of the embedded one of a running service, so that requests do not
 * wait. Throws as `readExisting` does.
 */
export async function withSnapshot<T>(work: (db: Db, driver: Driver) => Promise<T>): Promise<T> {
  const { database, dataDir } = readExisting()
  const service = await serviceOn(database)
  if (!service) {
    await using driver = await openDriver(database)
    return await work(createDb(driver), driver)
  }
  using folder = temporaryFolder(dataDir)
  await service.copyTo!(join(folder.path, clusterName))
  folder.claim()
  const { withUnpacked } = await import('./backup/read-through.ts')
  return await withUnpacked(folder.path, 'the copy', copy => work(createDb(copy), copy))
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
