import { rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Config } from '../config/config.ts'
import { clusterName, holdsDatabase } from '../config/data-dir.ts'
import type { Driver } from '../db/driver.ts'
import { openDriver } from '../db/drizzle.ts'
import { connectToService, newCopy, type ServiceCalls } from './control.ts'

/** A database, perhaps that of a running service, which has no transactions for others but does this on their behalf. */
export type CommandDriver = Driver & Partial<ServiceCalls>

/** The database of the settings, for a command: through the service when that has the embedded one. */
export async function openDatabase({ database }: Config): Promise<CommandDriver> {
  const service = database.kind === 'embedded' ? await connectToService(database.dataDir) : undefined
  return service ?? openDriver(database)
}

/** Whether the embedded database has not been made yet. */
export const isAbsent = ({ database }: Config): boolean =>
  database.kind === 'embedded' && !holdsDatabase(database.dataDir)

/** The same, for commands that make no sense on a database that is not there. Throws an Error with one line then. */
export async function openExisting(config: Config): Promise<CommandDriver> {
  if (isAbsent(config)) {
    throw new Error(
      `there is no database in DATA_DIR ${config.dataDir}; set DATA_DIR or DATABASE_URL as the service has them`,
    )
  }
  return openDatabase(config)
}

/** A database to read from: of the embedded one that a service has, a copy, so that nobody waits for us. */
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
