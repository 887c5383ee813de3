import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { readMigrations } from '../migrations.macro.ts'

/** What the database of the build is made of, besides the migrations. */
const sources = [
  'bun.lock',
  'scripts/make-cluster.ts',
  'src/db/embedded/cluster-files.ts',
  'src/db/embedded/durable-fs.ts',
  'src/db/migrator.ts',
]

/**
 * The name of the database that `scripts/make-cluster.ts` makes. It follows from all that the database is made of, so that
 * one with other migrations than the program's is never found. Imported as a macro by the program.
 */
export function archiveName(): string {
  const root = join(import.meta.dir, '../../..')
  const hash = new Bun.CryptoHasher('sha256').update(JSON.stringify(readMigrations()))
  for (const path of sources) hash.update(readFileSync(join(root, path)))
  return `cluster-${hash.digest('hex').slice(0, 12)}.tar.gz`
}
