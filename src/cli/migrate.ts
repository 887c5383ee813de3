import type { Config } from '../config/config.ts'
import { distribute, undistributedTables } from '../db/distribute.ts'
import { migrationState, migrations } from '../db/migrator.ts'
import { openDriver } from '../db/open-driver.ts'
import { distributedTables } from '../modules/table-registry.ts'
import { applyMigrations, isAbsent, openDatabase, sayItWaits } from './open-database.ts'
import { readConfig } from './read-config.ts'
import { say } from './terminal.ts'

/** `todo-api migrate [--status | --distribute]`: returns whether the database is up to date at the end. */
export async function migrateCommand(
  _: string,
  options: { status?: boolean; distribute?: boolean },
): Promise<boolean> {
  const config = readConfig()
  if (options.status) return report(await pending(config))
  await using driver = await openDriver(config.database)
  for (const tag of await applyMigrations(driver)) say(`applied ${tag}`)
  // A migration may have made a table that is not where the others are.
  if (options.distribute || (await undistributedTables(driver, distributedTables))?.length) {
    for (const table of await distribute(driver, distributedTables, sayItWaits))
      say(`distributed ${table} by user`)
  }
  say('up to date')
  return true
}

/** Creates no database; that of a running service is read through the service. */
async function pending(config: Config): Promise<string[]> {
  if (isAbsent(config)) return migrations.map(({ tag }) => tag)
  await using driver = await openDatabase(config)
  return (await migrationState(driver)).pending
}

function report(tags: string[]): boolean {
  for (const tag of tags) say(`pending ${tag}`)
  say(tags.length === 0 ? 'up to date' : `${tags.length} pending`)
  return tags.length === 0
}
