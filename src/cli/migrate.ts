import type { Config } from '../config/config.ts'
import { openDriver } from '../db/drizzle.ts'
import { migrate, migrationState, migrations } from '../db/migrator.ts'
import { readConfig } from './env.ts'
import { isAbsent, openDatabase } from './open-database.ts'
import { say } from './terminal.ts'

/** `todo-api migrate [--status]`: returns whether the database is up to date at the end. */
export async function migrateCommand(_: string, { status = false }: { status?: boolean }): Promise<boolean> {
  const config = readConfig()
  if (status) return report(await pending(config))
  const driver = await openDriver(config.database)
  try {
    for (const tag of await migrate(driver)) say(`applied ${tag}`)
    say('up to date')
    return true
  } finally {
    await driver.close()
  }
}

/** Creates no database; that of a running service is read through the service. */
async function pending(config: Config): Promise<string[]> {
  if (isAbsent(config)) return migrations.map(({ tag }) => tag)
  const driver = await openDatabase(config)
  try {
    return (await migrationState(driver)).pending
  } finally {
    await driver.close()
  }
}

function report(tags: string[]): boolean {
  for (const tag of tags) say(`pending ${tag}`)
  say(tags.length === 0 ? 'up to date' : `${tags.length} pending`)
  return tags.length === 0
}
