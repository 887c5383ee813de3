/**
 * Makes build/cluster-HASH.tar.gz unless it is there: a new database with all migrations, shut down cleanly. The executable
 * carries it, so that a first start unpacks it instead of running initdb (5 s, 1 GB of memory) and the migrations.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Glob } from 'bun'
import { clusterName } from '../src/config/data-dir.ts'
import { archiveName } from '../src/db/embedded/cluster-archive.macro.ts'
import { initialize } from '../src/db/embedded/cluster-files.ts'
import { openEmbedded } from '../src/db/embedded/embedded.ts'
import { migrate } from '../src/db/migrator.ts'

const build = join(import.meta.dir, '..', 'build')
if (!existsSync(join(build, archiveName()))) await make(archiveName())

async function make(name: string): Promise<void> {
  mkdirSync(build, { recursive: true })
  const work = mkdtempSync(join(build, 'cluster-'))
  try {
    const folder = join(work, clusterName)
    await initialize(folder)
    const driver = await openEmbedded({ dataDir: work })
    await migrate(driver, [])
    await driver.close(600)
    await Bun.Archive.write(join(work, 'archive'), await entries(folder), { compress: 'gzip', level: 9 })
    renameSync(join(work, 'archive'), join(build, name))
    // Those of other sources are not used any more.
    for (const archive of new Glob('cluster*.tar.gz').scanSync(build))
      if (archive !== name) rmSync(join(build, archive), { force: true })
  } finally {
    rmSync(work, { recursive: true })
  }
}

/** Names and contents; a name that ends in a slash is a folder, which PostgreSQL misses even when empty. */
async function entries(folder: string): Promise<Record<string, Uint8Array | string>> {
  const found: Record<string, Uint8Array | string> = {}
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath, entry.name)
    const name = path.slice(folder.length + 1)
    if (entry.isDirectory()) found[`${name}/`] = ''
    else found[name] = await Bun.file(path).bytes()
  }
  return found
}
