import { Database } from 'bun:sqlite'
import {
  chmodSync,
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { claimName } from '../lib/claim-name.ts'
import { openDraft, syncFolder } from '../lib/durable-file.ts'
import { fileId, rememberFile } from '../lib/file-id.ts'

/** The folder of DATA_DIR where the embedded database is. */
export const clusterName = 'cluster'
/** The file of DATA_DIR that the process which uses the embedded database has locked. */
export const lockName = 'lock'
/** The tests make it shorter. */
export const lockLimits = {
  /** A process that was just killed may hold the lock for a moment, and a command that ran before a service started for longer. */
  waitMs: 3000,
}
/** The file of DATA_DIR with the generated secret key. */
export const secretName = 'secret_key'
/** A database that is being restored. */
export const stagingName = 'restore.new'
/** A restored database that is complete and checked, before it is moved to its place. */
const restoredName = 'restore.ready'

/**
 * Makes the folder with mode 0700 if it does not exist, and syncs it to disk. Throws an Error with one line for the
 * user who set `DATA_DIR`, also when root would make files in the folder of another user.
 */
export function prepareDataDir(path: string): void {
  try {
    requireOwner(path)
    const folder = resolve(path)
    const made = mkdirSync(folder, { recursive: true, mode: 0o700 })
    if (made) syncUpTo(dirname(made), folder)
    // An empty folder is a fresh volume. The mode of one with files in it is left alone: it may be used for more.
    else if (readdirSync(path).length === 0) allowOnlyUs(path)
  } catch (cause) {
    throw unusable(path, cause)
  }
}

/**
 * Makes the folder if it does not exist and locks it until `close`, or until the process ends: two engines on one database
 * would silently destroy it. Throws an Error with one line that names the folder when another process has locked it.
 *
 * The lock is an SQLite file, because SQLite knows the right call for each system and the kernel releases it when the
 * process dies. It is beside the database's folder, not in it: a process loses such a lock when it closes any other handle
 * on the file, as a copy of the folder would.
 */
export function openDataDir(path: string) {
  prepareDataDir(path)
  const lock = lockFile(path)
  held.add(lock)
  /** False once the lock file was deleted or replaced: another process may have locked the folder. */
  const isLocked = rememberFile(join(resolve(path), lockName))
  let claimed: ReturnType<typeof claimName>
  /**
   * Claims the database that `file` is part of: no other process can open it, not under another name (a second mount of its
   * folder), nor after the lock file was deleted. Works on Linux, within one container; elsewhere the lock alone decides.
   */
  const claim = async (file: string) => {
    claimed = await claimFile(path, file)
  }
  const close = () => {
    claimed?.stop()
    held.delete(lock)
    lock.close()
  }
  try {
    finishInterruptedRestore(resolve(path))
  } catch (cause) {
    close()
    throw unusable(path, cause)
  }
  return { path: resolve(path), isLocked, claim, close, [Symbol.dispose]: close }
}

/** A data folder that this process has locked. */
export type DataDir = ReturnType<typeof openDataDir>

/** Waits as for the lock. */
async function claimFile(path: string, file: string) {
  const name = `database ${fileId(file)}`
  const until = performance.now() + lockLimits.waitMs
  while (true) {
    try {
      return claimName(name)
    } catch (cause) {
      // Where the sandbox has no such sockets, the lock decides.
      if (codeOf(cause) !== 'EADDRINUSE') return undefined
      if (performance.now() > until) throw inUse(path)
    }
    await Bun.sleep(10)
  }
}

/**
 * Throws when this is root and the database, or the folder for it, belongs to another user, who could not read what root
 * makes there.
 */
function requireOwner(path: string): void {
  const place = [join(path, clusterName), path].find(place => existsSync(place))
  if (process.geteuid?.() !== 0 || !place) return
  const { uid, gid } = statSync(place)
  if (uid === 0 || uid === ownerOfNewFile(path)) return
  throw new Error(
    `${place} belongs to user ${uid}, and this is root; run commands and the service as its owner: setpriv --reuid ${uid} --regid ${gid} --clear-groups todo-api …`,
  )
}

/** Not always the user of this process: network file systems have rules of their own. */
function ownerOfNewFile(folder: string): number {
  using draft = openDraft(join(folder, 'owner'))
  return fstatSync(draft.file).uid
}

/** Whether the folder has a database, or one that is being restored. */
export function holdsDatabase(path: string): boolean {
  return [clusterName, restoredName].some(name => existsSync(join(path, name)))
}

/**
 * Replaces the database, and the secret if there is one, by those of `staging`, completely or not at all: after the first
 * rename the next process that locks the folder finishes an interrupted replacement. Returns where the replaced database
 * is. The caller has locked `dataDir`.
 */
export function replaceDatabase(dataDir: string, staging: string): string | undefined {
  renameSync(staging, join(dataDir, restoredName))
  syncFolder(dataDir)
  return finishReplacement(dataDir)
}

/** Can be repeated after an interruption: what is in `restore.ready` has not been moved yet. */
function finishReplacement(dataDir: string): string | undefined {
  const restored = join(dataDir, restoredName)
  const replaced = join(restored, 'replaced')
  for (const name of [secretName, clusterName].filter(name => existsSync(join(restored, name)))) {
    if (existsSync(join(dataDir, name))) {
      mkdirSync(replaced, { recursive: true, mode: 0o700 })
      renameSync(join(dataDir, name), join(replaced, name))
      syncFolder(replaced)
    }
    renameSync(join(restored, name), join(dataDir, name))
    syncFolder(restored)
    syncFolder(dataDir)
  }
  const aside = join(dataDir, `replaced-${new Date().toISOString().slice(0, 19).replaceAll(':', '')}Z`)
  const hasReplaced = existsSync(replaced)
  if (hasReplaced) renameSync(replaced, aside)
  rmSync(restored, { recursive: true })
  syncFolder(dataDir)
  return hasReplaced ? aside : undefined
}

/** One that had not come far enough is dropped. */
function finishInterruptedRestore(dataDir: string): void {
  rmSync(join(dataDir, stagingName), { recursive: true, force: true })
  if (!existsSync(join(dataDir, restoredName))) return
  const aside = finishReplacement(dataDir)
  const about = aside ? `; what was there before is in ${aside}` : ''
  // Unlike process.stderr.write, it does not end the program when it cannot be written.
  console.error(`todo-api: finished a restore that was interrupted${about}`)
}

/** References to locks: an unreferenced one would be garbage-collected and so released. */
const held = new Set<Database>()

/** Locks a file in a data folder until it is closed or the process ends; creates it if it does not exist. */
export function lockFile(path: string, name = lockName, waitMs = lockLimits.waitMs): Database {
  const file = join(path, name)
  try {
    // SQLite would make one that all users can read, and so lock.
    if (!existsSync(file)) closeSync(openSync(file, 'a', 0o600))
    const lock = new Database(file)
    lock.run(`PRAGMA busy_timeout = ${waitMs}`)
    // Without a journal on disk, SQLite does not mind that the file is deleted meanwhile.
    lock.run('PRAGMA journal_mode = MEMORY')
    lock.run('BEGIN EXCLUSIVE')
    // A file that may only be read is opened without an error, and not locked: only a write, never committed, is refused.
    lock.run('PRAGMA user_version = 1')
    return lock
  } catch (cause) {
    throw codeOf(cause).startsWith('SQLITE_BUSY') ? inUse(path) : unusable(path, cause)
  }
}

const inUse = (path: string) =>
  new Error(
    `DATA_DIR ${resolve(path)} is in use by another todo-api process; stop that one, or set DATA_DIR to another folder`,
  )

function allowOnlyUs(path: string): void {
  try {
    chmodSync(path, 0o700)
  } catch {
    // A writable volume of another owner. The files in it have modes of their own.
  }
}

function syncUpTo(top: string, path: string): void {
  for (let folder = path; folder !== top; ) {
    folder = dirname(folder)
    syncFolder(folder)
  }
}

/** An error of the system in words. One without a code is of ours, and is in words already. */
export function unusable(path: string, cause: unknown): unknown {
  const code = codeOf(cause)
  if (!code) return cause
  const reason = reasons[code] ?? (cause as Error).message
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
  SQLITE_READONLY: 'its lock file may not be written to',
  SQLITE_NOTADB: 'its file "lock" is something else',
  SQLITE_FULL: 'the disk is full',
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}
