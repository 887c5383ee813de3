import type { Config } from '../config.ts'
import { openDriver } from '../db/client.ts'
import type { Driver } from '../db/driver.ts'

/** The database of the settings, for a command. */
export async function openDatabase({ database }: Config): Promise<Driver> {
  return openDriver(database)
}

/** A database to read from, as it is at one moment: `session` works on it. */
export async function openSnapshot({ database }: Config): Promise<Driver> {
  return openDriver(database)
}
