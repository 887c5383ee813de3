import { copyFileSync, existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { create } from 'tar'
import type { Config } from '../../config/config.ts'
import { clusterName, openDataDir, secretName } from '../../config/data-dir.ts'
import { type Output, writeOutput } from '../atomic-file.ts'
import { connectToService, newCopy } from '../control.ts'
import { readConfig } from '../env.ts'
import { isAbsent } from '../open-database.ts'
import { createProgress, say, UsageError } from '../terminal.ts'

/** Throws `UsageError` on PostgreSQL, which has tools of its own. */
export function requireEmbedded({ database, dataDir }: Config, instead: string): string {
  if (database.kind === 'embedded') return dataDir
  throw new UsageError(
    `this command is for the embedded database, but DATABASE_URL is set; for PostgreSQL use: ${instead}`,
  )
}

/**
 * `todo-api backup`: packs the embedded database and the generated secret into one file; `-` is stdout. A running service
 * copies the database between two statements, and the copy is packed; without a service the folder is locked meanwhile.
 */
export async function backupCommand(file: string): Promise<void> {
  const config = readConfig()
  const dataDir = requireEmbedded(config, 'pg_dump --format=custom --file=FILE "$DATABASE_URL"')
  if (isAbsent(config)) {
    throw new Error(`there is no database in DATA_DIR ${dataDir}; use the service's DATA_DIR`)
  }
  // The file first: a folder that does not exist is noticed before the copy is made.
  const bytes = await writeOutput(file, output =>
    withUnchangingFolder(dataDir, folder => pack(folder, output)),
  )
  say(`backup of ${Math.ceil(bytes / 1e6)} MB written`)
}

/** Calls `work` with a folder that does not change. */
async function withUnchangingFolder<T>(dataDir: string, work: (folder: string) => Promise<T>): Promise<T> {
  const service = await connectToService(dataDir)
  if (!service) {
    const claimed = openDataDir(dataDir)
    return work(dataDir).finally(() => claimed.close())
  }
  const copy = newCopy(dataDir)
  try {
    await service.copyTo!(join(copy, clusterName))
    const secret = join(dataDir, secretName)
    if (existsSync(secret)) copyFileSync(secret, join(copy, secretName))
    return await work(copy)
  } finally {
    rmSync(copy, { recursive: true, force: true })
  }
}

/** Returns the size of the archive. */
async function pack(folder: string, output: Output): Promise<number> {
  const progress = createProgress('files', readdirSync(join(folder, clusterName), { recursive: true }).length)
  const names = [secretName, clusterName].filter(name => existsSync(join(folder, name)))
  const onWriteEntry = () => progress.add(1)
  let bytes = 0
  // `portable` leaves the owners out: the restored files belong to the user who restores.
  for await (const chunk of create(
    { cwd: folder, gzip: { level: 6 }, portable: true, onWriteEntry },
    names,
  )) {
    await output.write(chunk)
    bytes += chunk.length
  }
  progress.clear()
  return bytes
}
