import { openDriver } from '../db/client.ts'
import { migrate, pendingMigrations } from '../db/migrate.ts'
import { readConfig } from './settings.ts'
import { say } from './terminal.ts'

/** `todo-api migrate [--status]`; whether the database is up to date at the end. */
export async function migrateCommand({ status = false }: { status?: boolean }): Promise<boolean> {
  const driver = await openDriver(readConfig().database)
  try {
    if (status) return report(await pendingMigrations(driver))
    for (const tag of await migrate(driver)) say(`applied ${tag}`)
    say('up to date')
    return true
  } finally {
    await driver.close()
  }
}

function report(pending: string[]): boolean {
  for (const tag of pending) say(`pending ${tag}`)
  say(pending.length === 0 ? 'up to date' : `${pending.length} pending`)
  return pending.length === 0
}
