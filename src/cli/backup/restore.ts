import { createReadStream, existsSync, mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Unpack } from 'tar'
import { clusterName, openDataDir, replaceDatabase, secretName } from '../../config/data-dir.ts'
import { createDb } from '../../db/drizzle.ts'
import { syncTree } from '../../db/embedded/cluster-files.ts'
import { openEmbedded } from '../../db/embedded/embedded.ts'
import { migrate, migrationState } from '../../db/migrator.ts'
import { databaseError } from '../../db/pg-error.ts'
import { connectToService } from '../control.ts'
import { readConfig } from '../env.ts'
import { skipVersions } from '../reset-sync.ts'
import { createProgress, say } from '../terminal.ts'
import { requireEmbedded } from './backup.ts'

/**
 * `todo-api restore`: replaces the embedded database with a backup, which is unpacked, opened and read in full before
 * anything is changed. With `force` an existing database is set aside, not deleted.
 */
export async function restoreCommand(file: string, { force = false }: { force?: boolean }): Promise<void> {
  const path = requireEmbedded(readConfig(), 'pg_restore --clean --if-exists --dbname="$DATABASE_URL" FILE')
  if (await connectToService(path)) {
    throw new Error(`a service runs on DATA_DIR ${path}; stop the service first`)
  }
  const claimed = openDataDir(path)
  const staging = join(claimed.path, 'restore.new')
  try {
    if (existsSync(join(claimed.path, clusterName)) && !force) {
      throw new Error(
        `DATA_DIR ${path} already has a database; --force sets it aside and restores the backup`,
      )
    }
    rmSync(staging, { recursive: true, force: true })
    mkdirSync(staging, { mode: 0o700 })
    await unpack(file, staging)
    const { users, tasks } = await prepare(staging, file)
    await syncTree(staging)
    const aside = replaceDatabase(claimed.path, staging)
    say(`restored ${users} users and ${tasks} tasks`)
    if (aside) say(`the database from before is in ${aside}; delete it when it is no longer needed`)
  } finally {
    rmSync(staging, { recursive: true, force: true })
    claimed.close()
  }
}

async function unpack(file: string, folder: string): Promise<void> {
  const progress = createProgress('files')
  let foreign = false
  const filter = (path: string, entry: object) => {
    const belongs = path === secretName || path.startsWith(`${clusterName}/`)
    const isOurs = belongs && 'type' in entry && (entry.type === 'File' || entry.type === 'Directory')
    if (!isOurs) foreign = true
    progress.add(1)
    return isOurs
  }
  try {
    await feed(
      file === '-' ? Bun.stdin.stream() : createReadStream(file),
      new Unpack({ cwd: folder, strict: true, preserveOwner: false, filter }),
    )
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' && !existsSync(file)) throw new Error(`there is no file ${file}`)
    if (code === 'ENOSPC') throw new Error('the disk is full; nothing was changed')
    throw new Error(`${file} is not a backup, or is damaged: ${message}`, { cause: error })
  } finally {
    progress.clear()
  }
  if (foreign || !existsSync(join(folder, clusterName, 'PG_VERSION'))) {
    throw new Error(`${file} is not a backup, or is damaged: it does not have the files of a backup`)
  }
}

/** Writes to the unpacker, which does not work with Node's `pipeline`. */
async function feed(source: AsyncIterable<Uint8Array>, unpacker: Unpack): Promise<void> {
  let failure: unknown
  const done = new Promise<void>((resolve, reject) => {
    unpacker.once('close', resolve)
    unpacker.once('error', error => {
      failure = error
      reject(error)
    })
  })
  done.catch(() => {})
  for await (const chunk of source) {
    if (failure) throw failure
    const drained = new Promise<void>(resolve => unpacker.once('drain', resolve))
    if (!unpacker.write(Buffer.from(chunk))) await Promise.race([drained, done])
  }
  unpacker.end()
  await done
}

/**
 * Opens the database, which recovers it, reads every row and applies pending migrations. Changes after the backup are
 * lost, so their versions are skipped. Throws when a newer program made the backup. No row is judged by the rules of
 * requests: they may have become stricter since.
 */
async function prepare(folder: string, file: string): Promise<{ users: number; tasks: number }> {
  const driver = await openEmbedded({ dataDir: { path: folder, close() {} }, freeBytesMin: 0 })
  try {
    const { newer } = await migrationState(driver)
    if (newer > 0) {
      throw new Error('a newer todo-api made this backup; restore it with that version')
    }
    // The length of each row as text: computing it reads every value.
    const counts: Record<string, number> = {}
    const tables = await driver.query(
      `select quote_ident(tablename) from pg_tables where schemaname = 'public'`,
      [],
    )
    for (const [table] of tables as [string][]) {
      const [row] = await driver.query(`select count(*), sum(octet_length(t::text)) from ${table} t`, [])
      counts[table] = Number(row![0])
    }
    await migrate(driver)
    await skipVersions(createDb(driver))
    return { users: counts.users!, tasks: counts.tasks! }
  } catch (cause) {
    const failure = databaseError(cause)
    const isDamage = failure && /^(58|XX)/.test(failure.code)
    throw isDamage ? new Error(`${file} is damaged: ${failure.message}`, { cause }) : cause
  } finally {
    await driver.close()
  }
}
