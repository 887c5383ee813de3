import { Database } from 'bun:sqlite'
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'

/** The folder of DATA_DIR where the embedded database is. */
export const clusterName = 'cluster'
/** The file of DATA_DIR with the secret that the service made for itself, if it did. */
export const secretName = 'secret_key'
/** A restored database, whole and checked, on its way to its place. */
const arrivingName = 'restore.ready'

/** A data folder that belongs to this process until `close`, or until the process ends in whatever way. */
export interface DataDir {
  /** Absolute. */
  readonly path: string
  /** Lets the next process in. */
  close(): void
}

/**
 * Makes the folder with mode 0700 if it is not there, on disk before the call returns.
 * Throws an Error with one line for the person who set `DATA_DIR`.
 */
export function prepareDataDir(path: string): void {
  try {
    const made = mkdirSync(path, { recursive: true, mode: 0o700 })
    if (made) syncUpTo(dirname(resolve(made)), resolve(path))
    // An empty folder is a fresh volume, and ours. One with other things in it may be anybody's: leave its mode alone.
    else if (readdirSync(path).length === 0) allowOnlyUs(path)
  } catch (cause) {
    throw unusable(path, cause)
  }
}

/**
 * Makes the folder if need be and claims it: two engines on one database destroy it without a word.
 * Throws an Error with one line that names the folder when another process has it.
 *
 * The lock is an SQLite file, because SQLite brings the right call for each system and the kernel
 * releases it when the process dies. It lies beside the database's folder, not in it: a process loses such a lock
 * when it closes any other handle on the file, as a copy of the folder would.
 */
export function openDataDir(path: string): DataDir {
  prepareDataDir(path)
  const lock = lockFile(path)
  held.add(lock)
  const close = () => {
    held.delete(lock)
    lock.close()
  }
  try {
    finishInterruptedRestore(resolve(path))
  } catch (cause) {
    close()
    throw unusable(path, cause)
  }
  return { path: resolve(path), close }
}

/** Whether a database is in the folder, or on its way there. */
export function holdsDatabase(path: string): boolean {
  return [clusterName, arrivingName].some(name => existsSync(join(path, name)))
}

/**
 * Puts a folder with a database, and perhaps a secret, in the place of those of DATA_DIR, whole or not at all: the
 * first rename decides, and whatever process next claims the folder finishes the rest. Returns where the replaced
 * database is. The caller has claimed `dataDir`.
 */
export function replaceDatabase(dataDir: string, staging: string): string | undefined {
  renameSync(staging, join(dataDir, arrivingName))
  syncFolder(dataDir)
  return finishReplacement(dataDir)
}

/** Each step can be repeated: what is still in `restore.ready` has yet to move. */
function finishReplacement(dataDir: string): string | undefined {
  const arriving = join(dataDir, arrivingName)
  const replaced = join(arriving, 'replaced')
  for (const name of [secretName, clusterName].filter(name => existsSync(join(arriving, name)))) {
    if (existsSync(join(dataDir, name))) {
      mkdirSync(replaced, { recursive: true, mode: 0o700 })
      renameSync(join(dataDir, name), join(replaced, name))
      syncFolder(replaced)
    }
    renameSync(join(arriving, name), join(dataDir, name))
    syncFolder(arriving)
    syncFolder(dataDir)
  }
  const aside = join(dataDir, `replaced-${new Date().toISOString().slice(0, 19).replaceAll(':', '')}Z`)
  const hasReplaced = existsSync(replaced)
  if (hasReplaced) renameSync(replaced, aside)
  rmSync(arriving, { recursive: true })
  syncFolder(dataDir)
  return hasReplaced ? aside : undefined
}

function finishInterruptedRestore(dataDir: string): void {
  if (!existsSync(join(dataDir, arrivingName))) return
  const aside = finishReplacement(dataDir)
  const about = aside ? `; what was there before is in ${aside}` : ''
  process.stderr.write(`todo-api: finished a restore that was interrupted${about}\n`)
}

/** A lock that nothing refers to is garbage, and collecting it would let others in. */
const held = new Set<Database>()

/** Puts a folder's list of names on disk; what is in the files is another matter. */
export function syncFolder(path: string): void {
  const folder = openSync(path, 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
}

/**
 * Opens a new file beside the one that it will become, for its owner only. Its name is
 * unpredictable and must be free: another user of the folder cannot put a file or a link in its way.
 */
export function openDraft(path: string): { path: string; file: number } {
  const draft = `${path}.${crypto.randomUUID()}.part`
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants
  return { path: draft, file: openSync(draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600) }
}

/** Locks a file in a data folder, which is made if need be, until it is closed or the process ends. */
export function lockFile(path: string, name = 'lock'): Database {
  let lock: Database | undefined
  try {
    lock = new Database(join(path, name), { create: true })
    // A process that was killed a moment ago may still be on its way out.
    lock.run('PRAGMA busy_timeout = 1000')
    lock.run('PRAGMA journal_mode = MEMORY')
    lock.run('BEGIN EXCLUSIVE')
    return lock
  } catch (cause) {
    lock?.close()
    const busy = codeOf(cause).startsWith('SQLITE_BUSY')
    throw busy
      ? new Error(
          `DATA_DIR ${resolve(path)} is in use by another todo-api process; stop that one, or set DATA_DIR to another folder`,
        )
      : unusable(path, cause)
  }
}

function allowOnlyUs(path: string): void {
  try {
    chmodSync(path, 0o700)
  } catch {
    // A volume that we may write to but do not own. What lies inside has modes of its own.
  }
}

function syncUpTo(top: string, path: string): void {
  for (let folder = dirname(path); folder.length >= top.length; folder = dirname(folder)) {
    syncFolder(folder)
    if (folder === dirname(folder)) return
  }
}

function unusable(path: string, cause: unknown): Error {
  const reason = reasons[codeOf(cause)] ?? (cause instanceof Error ? cause.message : String(cause))
  return new Error(`DATA_DIR ${path} cannot be used: ${reason}`, { cause })
}

const reasons: Record<string, string> = {
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'the file system is read-only',
  EEXIST: 'a file is in the way',
  ENOTDIR: 'a file is in the way',
  ENOSPC: 'the disk is full',
  SQLITE_CANTOPEN: 'files cannot be made in it',
  SQLITE_READONLY: 'files cannot be made in it',
  SQLITE_NOTADB: 'its file "lock" is something else',
  SQLITE_FULL: 'the disk is full',
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}
