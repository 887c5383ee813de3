import { createReadStream, existsSync, mkdirSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { clusterName, openDataDir, replaceDatabase, secretName, stagingName } from '../../config/data-dir.ts'
import { hasDamagedSecret } from '../../config/secret-key.ts'
import { createDb } from '../../db/drizzle.ts'
import { syncTree } from '../../db/embedded/cluster-files.ts'
import { majorOf, postgresMajor } from '../../db/embedded/major.ts'
import { migrationState } from '../../db/migrator.ts'
import { exitOnSignal, removedAtEnd } from '../atomic-file.ts'
import { connectToService } from '../control-socket.ts'
import { applyMigrations } from '../open-database.ts'
import { operationsOn } from '../operations.ts'
import { readConfig } from '../read-config.ts'
import { resetSync } from '../reset-sync.ts'
import { createProgress, say } from '../terminal.ts'
import { importFile } from '../transfer/import-file.ts'
import { createLoader } from '../transfer/loader.ts'
import { exportName, makerOf, unpack } from './archive.ts'
import { requireEmbedded } from './backup.ts'
import { readThrough, withUnpacked } from './read-through.ts'

/**
 * `todo-api restore`: replaces the embedded database with a backup, which is unpacked, opened and read in full before
 * anything is changed. With `force` an existing database is set aside, not deleted.
 */
export async function restoreCommand(file: string, { force = false }: { force?: boolean }): Promise<void> {
  const path = requireEmbedded(readConfig(), 'pg_restore --clean --if-exists --dbname="$DATABASE_URL" FILE')
  if (await connectToService(path)) {
    throw new Error(`a service runs on DATA_DIR ${path}; stop the service first`)
  }
  exitOnSignal()
  using claimed = openDataDir(path)
  if (existsSync(join(claimed.path, clusterName)) && !force) {
    throw new Error(`DATA_DIR ${path} already has a database; --force sets it aside and restores the backup`)
  }
  using unpacked = removedAtEnd(join(claimed.path, stagingName))
  const staging = unpacked.path
  mkdirSync(staging, { mode: 0o700 })
  await unpack(file, staging)
  const isOld = majorOf(join(staging, clusterName)) !== postgresMajor
  const { users, tasks } = isOld ? await importFrom(staging, file) : await prepare(staging, file)
  if (hasDamagedSecret(staging)) {
    rmSync(join(staging, secretName))
    say('the secret in the backup is damaged and left out; users may have to sign in again')
  }
  await syncTree(staging)
  const aside = replaceDatabase(claimed.path, staging)
  say(`restored ${users} users and ${tasks} tasks into ${resolve(path)}`)
  if (isOld) say('from the export in the backup, which has no sessions: users sign in again')
  if (aside) say(`the database from before is in ${aside}; delete it when it is no longer needed`)
}

/**
 * Opens the database, which recovers it, reads every row, applies pending migrations, and makes what clients hold of
 * changes after the backup invalid. Throws when a newer program made the backup. No row is judged by the rules of
 * requests: they may have become stricter since.
 */
function prepare(folder: string, file: string) {
  return withUnpacked(folder, file, async driver => {
    const { newer } = await migrationState(driver)
    if (newer > 0) {
      throw new Error('a newer todo-api made this backup; restore it with that version')
    }
    const counts = await readThrough(driver)
    await applyMigrations(driver)
    using progress = createProgress()
    await resetSync(createDb(driver), progress.add)
    return counts
  })
}

/** Makes a new database from the export of a backup, whose own one another PostgreSQL has made. */
async function importFrom(folder: string, file: string) {
  const cluster = join(folder, clusterName)
  const major = majorOf(cluster)
  if (!existsSync(join(folder, exportName))) {
    throw new Error(
      `${file} is of PostgreSQL ${major} and carries no export, and this todo-api has PostgreSQL ${postgresMajor}: restore it with ${makerOf(folder)} into another DATA_DIR, write its data to a file there (todo-api export FILE), and import FILE here`,
    )
  }
  rmSync(cluster, { recursive: true })
  return withUnpacked(folder, file, async driver => {
    await applyMigrations(driver)
    using progress = createProgress()
    const loader = createLoader(operationsOn(createDb(driver)), progress)
    await importFile(createReadStream(join(folder, exportName)), loader)
    const { added, skipped } = loader.counts
    if (skipped > 0) throw new Error(`${skipped} rows of the backup cannot be restored; nothing was changed`)
    return { users: added.user, tasks: added.task }
  })
}
