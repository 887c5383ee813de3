import { createReadStream, existsSync, statSync } from 'node:fs'
import { createReader, type Env } from '../../config/config.ts'
import { openPostgres } from '../../db/postgres/postgres.ts'
import { applyMigrations, openDatabase } from '../open-database.ts'
import type { Operations } from '../operations.ts'
import { readConfig, readEnv } from '../read-config.ts'
import { createProgress, type Progress, say, UsageError } from '../terminal.ts'
import { countFastApi, importFastApi } from './import-fastapi.ts'
import { importFile } from './import-file.ts'
import { createLoader, type Loader } from './loader.ts'

/**
 * `todo-api import FILE` adds the rows of an export; without a file, those of the FastAPI service. Returns whether every
 * row is in the database now.
 */
export async function importCommand(file: string, { from }: { from?: string }): Promise<boolean> {
  if (file !== '' && from !== undefined) throw new UsageError('name a FILE or use --from, not both')
  if (file !== '' && file !== '-' && !existsSync(file)) throw new Error(`there is no file ${file}`)
  if (file !== '' && file !== '-' && statSync(file).isDirectory()) throw new Error(`${file} is a folder`)
  const source = file === '' ? fastApiUrl(from, readEnv().env) : undefined
  await using driver = await openDatabase(readConfig())
  // A program newer than the database would write the wrong columns.
  await applyMigrations(driver)
  if (source !== undefined) return await fromFastApi(driver, source)
  const chunks = file === '-' ? Bun.stdin.stream() : createReadStream(file)
  return await load(driver, loader => importFile(chunks, loader))
}

async function fromFastApi(operations: Operations, url: string): Promise<boolean> {
  const source = openPostgres({ url, poolSize: 1 })
  return source.dedicatedConnection(async connection => {
    const { users, tasks } = await countFastApi(connection)
    return load(operations, loader => importFastApi(connection, loader), users + tasks)
  })
}

/** Adds the rows that `read` passes on, and says what became of them, also of those before a failure. */
async function load(operations: Operations, read: (loader: Loader) => Promise<void>, total?: number) {
  using progress = createProgress(total)
  const loader = createLoader(operations, progress)
  try {
    await read(loader)
  } finally {
    summarize(loader, progress)
  }
  return loader.counts.skipped === 0
}

function summarize({ counts: { added, present, skipped } }: Loader, progress: Progress): void {
  const notes = added.tombstone + added.list_tombstone
  const rare = [added.list > 0 && `, ${added.list} lists`, notes > 0 && `, ${notes} notes of deletions`]
  const what = [`${added.user} users, ${added.task} tasks`, ...rare.filter(text => text !== false)].join('')
  progress.say(`added ${what}; ${present} were here already; ${skipped} skipped`)
  if (skipped > 0)
    progress.say(
      'fix the skipped rows in the source and run import again; rows already imported stay unchanged',
    )
}

/** The address of the FastAPI service's database: an argument, or a setting, which other users of the machine cannot see. */
function fastApiUrl(argument: string | undefined, env: Env): string {
  const { secret, mistakes } = createReader(env)
  const url = argument ?? secret('FROM_DATABASE_URL')
  if (mistakes.length > 0) throw new UsageError(mistakes.join('\n'))
  if (!url) throw new UsageError('name a FILE, or set FROM_DATABASE_URL to import from the FastAPI service')
  // SQLAlchemy names its driver in the address.
  const address = url.trim().replace(/^postgres(ql)?(\+\w+)?:/, 'postgres:')
  if (!/^postgres:\/\/[^\s]+$/.test(address)) {
    throw new UsageError('the address to import from must look like postgres://user@host:5432/name')
  }
  if (argument && /^postgres:\/\/[^/@]*:[^/@]+@/.test(address)) {
    say(
      'warning: other users of this machine can read the password in the list of processes; FROM_DATABASE_URL hides it',
    )
  }
  return address
}
