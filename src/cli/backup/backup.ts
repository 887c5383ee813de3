import { copyFileSync, existsSync, mkdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Config } from '../../config/config.ts'
import { clusterName, secretName } from '../../config/data-dir.ts'
import { clusterBytes, freeBytes, freeBytesMin } from '../../db/embedded/copy.ts'
import { exitOnSignal, writeOutput } from '../atomic-file.ts'
import { isAbsent, openDatabase, temporaryFolder } from '../open-database.ts'
import { readConfig } from '../read-config.ts'
import { say, UsageError } from '../terminal.ts'
import { exportAll } from '../transfer/export.ts'
import { exportName, pack, unpack } from './archive.ts'
import { readThrough, withUnpacked } from './read-through.ts'

/** Throws `UsageError` on PostgreSQL, which has tools of its own. */
export function requireEmbedded({ database, dataDir }: Config, instead: string): string {
  if (database.kind === 'embedded') return dataDir
  throw new UsageError(
    `this command is for the embedded database, but DATABASE_URL is set; for PostgreSQL use: ${instead}`,
  )
}

/**
 * `todo-api backup`: packs the embedded database and the generated secret into one file; `-` is stdout. With `verify` the
 * file also carries an export, and gets its name only when it was unpacked, opened and read in full.
 */
export async function backupCommand(file: string, { verify = false }: { verify?: boolean }): Promise<void> {
  const config = readConfig()
  const dataDir = requireEmbedded(config, 'pg_dump --format=custom --file=FILE "$DATABASE_URL"')
  if (isAbsent(config)) {
    throw new Error(`there is no database in DATA_DIR ${dataDir}; use the service's DATA_DIR`)
  }
  if (verify && file === '-')
    throw new UsageError('--verify needs the name of a file: stdout cannot be read again')
  if (verify) requireSpace(dataDir, file)
  exitOnSignal()
  let rows: Record<string, number> = {}
  // The file first: a folder that does not exist is noticed before the copy is made.
  const bytes = await writeOutput(
    file,
    async output => {
      using folder = temporaryFolder(dataDir)
      const copy = folder.path
      await copyTo(copy, config)
      folder.claim()
      if (verify) rows = await withUnpacked(copy, 'the copy', driver => addExport(driver, copy))
      return await pack(copy, output)
    },
    verify ? draft => verifyArchive(draft, dataDir, rows) : undefined,
  )
  const verified = verify ? ` and read again: ${rows.users} users, ${rows.tasks} tasks` : ''
  say(`backup of ${megabytes(bytes)} written${verified}`)
}

const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6)} MB`

/** Copies the database and the secret. A running service goes on answering requests meanwhile. */
async function copyTo(folder: string, config: Config): Promise<void> {
  await using driver = await openDatabase(config)
  await driver.copyTo!(join(folder, clusterName))
  const secret = join(config.dataDir, secretName)
  if (existsSync(secret)) copyFileSync(secret, join(folder, secretName))
}

/** Opening the copy recovers it, and closing it leaves a cluster that needs no recovery. Returns the rows of each table. */
async function addExport(driver: Parameters<typeof exportAll>[0], copy: string) {
  await writeOutput(join(copy, exportName), output => exportAll(driver, output))
  return readThrough(driver)
}

/** Unpacks, opens and reads an archive. Throws when it is not what was packed. */
async function verifyArchive(file: string, dataDir: string, expected: Record<string, number>) {
  using scratch = temporaryFolder(dataDir)
  mkdirSync(scratch.path, { mode: 0o700 })
  scratch.claim()
  await unpack(file, scratch.path)
  const counts = await withUnpacked(scratch.path, file, readThrough)
  if (!Bun.deepEquals(counts, expected)) throw new Error(`${file} has other rows than the database`)
}

/** Twice the database in DATA_DIR, for a copy with its export, and half of it for the archive. */
function requireSpace(dataDir: string, file: string): void {
  const bytes = clusterBytes(join(dataDir, clusterName))
  const folder = dirname(file)
  // `writeOutput` says what is wrong with the folder.
  const isElsewhere = existsSync(folder) && statSync(folder).dev !== statSync(dataDir).dev
  const needed = new Map([[dataDir, isElsewhere ? 1.5 * bytes : 2 * bytes]])
  if (isElsewhere) needed.set(folder, 0.5 * bytes)
  for (const [place, wanted] of needed) {
    const free = freeBytes(place)
    if (free < wanted + freeBytesMin) {
      throw new Error(
        `not enough space in ${place}: a verified backup needs ${megabytes(wanted + freeBytesMin)}, and ${megabytes(free)} are free`,
      )
    }
  }
}
