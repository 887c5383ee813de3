import { readFileSync } from 'node:fs'
import { join } from 'node:path'

export interface Migration {
  tag: string
  /** When drizzle-kit wrote it, in milliseconds: its identity in the journal, as Drizzle's own tools have it. */
  when: number
  hash: string
  sql: string
}

/**
 * Reads the folder that drizzle-kit writes. Imported as a macro: Bun runs it while it builds and puts the result into
 * the program, so that the executable needs no folder beside it.
 */
export function readMigrations(): Migration[] {
  const folder = join(import.meta.dir, '../../drizzle')
  const journal = JSON.parse(readFileSync(join(folder, 'meta/_journal.json'), 'utf8'))
  return journal.entries.map(({ tag, when }: { tag: string; when: number }) => {
    const text = readFileSync(join(folder, `${tag}.sql`), 'utf8')
    const hash = new Bun.CryptoHasher('sha256').update(text).digest('hex')
    // drizzle-kit names the schema in references alone. All tables are in the first one of the session's `search_path`.
    return { tag, when, hash, sql: text.replaceAll('"public".', '') }
  })
}
