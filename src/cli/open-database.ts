import { rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Config } from '../config/config.ts'
import { clusterName, holdsDatabase } from '../config/data-dir.ts'
import type { Driver } from '../db/driver.ts'
import { createDb, type Db, openDriver } from '../db/drizzle.ts'
import { connectToService, newCopy, type ServiceCalls } from './control.ts'
import { readConfig } from './env.ts'

/** A database for a command. That of a running service refuses transactions, and has `ServiceCalls` instead. */
export type CommandDriver = Driver & Partial<ServiceCalls>

/** Opens the database of the settings: through the service when that has the embedded one. */
export async function openDatabase({ database }: Config): Promise<CommandDriver> {
  const service = database.kind === 'embedded' ? await connectToService(database.dataDir) : undefined
  return service ?? openDriver(database)
}

/** Whether the embedded database does not exist yet. */
export const isAbsent = ({ database }: Config): boolean =>
  database.kind === 'embedded' && !holdsDatabase(database.dataDir)

/** Opens the database of the settings if it exists. Throws an Error with one line if not. */
export async function openExisting(config: Config): Promise<CommandDriver> {
  if (isAbsent(config)) {
    throw new Error(
      `there is no database in DATA_DIR ${config.dataDir}; use the service's DATA_DIR or DATABASE_URL`,
    )
  }
  return openDatabase(config)
}

/** Runs a command on the database of the settings, if it exists. */
export async function withDatabase(work: (db: Db, driver: CommandDriver) => Promise<void>): Promise<void> {
  const driver = await openExisting(readConfig())
  try {
    await work(createDb(driver), driver)
  } finally {
    await driver.close()
  }
}

/** Opens a database to read all of it: a copy of the embedded one of a running service, so that requests do not wait. */
export async function openSnapshot(config: Config): Promise<Driver> {
  const { database } = config
  const service = database.kind === 'embedded' ? await connectToService(database.dataDir) : undefined
  if (database.kind === 'postgres' || !service) return openExisting(config)
  const folder = newCopy(database.dataDir)
  const remove = () => rmSync(folder, { recursive: true, force: true })
  try {
    await service.copyTo!(join(folder, clusterName))
    const { openEmbedded } = await import('../db/embedded/embedded.ts')
    const copy = await openEmbedded({ dataDir: { path: folder, close: remove } })
    const close = async (seconds?: number) => {
      await copy.close(seconds)
      remove()
    }
    return { ...copy, close }
  } catch (error) {
    remove()
    throw error
  }
}
