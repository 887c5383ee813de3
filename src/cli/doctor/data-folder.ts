import { accessSync, constants, existsSync, mkdtempSync, rmdirSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import type { Config } from '../../config/config.ts'
import { clusterName, lockName, secretName } from '../../config/data-dir.ts'
import { hasDamagedSecret } from '../../config/secret-key.ts'
import { freeBytes, freeBytesMin } from '../../db/embedded/copy.ts'
import { fail, ok, type Tell, type Verdict, warn } from './finding.ts'

const mebibyte = 1024 * 1024

/** Needed for the embedded database, and for a secret that the service makes for itself. Returns whether it is usable. */
export function examineDataDir({ dataDir, database, secretKey }: Config, tell: Tell): boolean {
  if (database.kind === 'postgres' && secretKey) return true
  if (!examineWriting('data folder', dataDir, 'DATA_DIR', tell)) return false
  if (!existsSync(dataDir)) {
    tell('data folder', `${dataDir} is made at the first start`, ok)
    return true
  }
  const { mode, uid } = statSync(dataDir)
  const user = process.geteuid?.()
  if (user === 0 && uid !== 0) {
    const cure = 'run commands and the service as its owner: what root makes there the owner cannot read'
    tell('data folder', `${dataDir} belongs to user ${uid}, and this is root`, warn(cure))
  }
  if (mode & 0o077) tell('data folder', `other users may look into ${dataDir}`, warn(`chmod 700 ${dataDir}`))
  if (!secretKey && hasDamagedSecret(dataDir)) {
    const cure = 'put the old file back, or delete it: all users then sign in again'
    tell('secret', `${join(dataDir, secretName)} is damaged`, fail(cure))
  }
  const free = freeBytes(dataDir)
  const about = `${dataDir}, ${Math.floor(free / mebibyte).toLocaleString('en')} MiB free`
  tell('data folder', about, judgeFreeSpace(free))
  return free >= freeBytesMin
}

/** Whether a folder of the settings can be written to; the folders above it are made with it. */
export function examineWriting(check: string, path: string, setting: string, tell: Tell): boolean {
  const folder = nearestFolder(path)
  const fault = faultOf(folder)
  if (fault)
    tell(check, `${fault.path} cannot be written to (${fault.code})`, fail(cureOf(fault, folder, setting)))
  return fault === undefined
}

function judgeFreeSpace(free: number): Verdict {
  if (free < freeBytesMin)
    return fail(`make room: below ${freeBytesMin / mebibyte} MiB the database refuses writes`)
  return free < 512 * mebibyte ? warn('make room before it runs out') : ok
}

/** The folder, or the first one above it that exists. */
const nearestFolder = (path: string): string =>
  existsSync(path) ? path : nearestFolder(dirname(resolve(path)))

interface Fault {
  path: string
  code: string
}

/** What keeps us from writing to a folder, or to what the service keeps in it. */
function faultOf(folder: string): Fault | undefined {
  const names = [clusterName, lockName, secretName]
  const files = names.map(name => join(folder, name)).filter(path => existsSync(path))
  let path = folder
  try {
    for (path of [folder, ...files]) accessSync(path, constants.R_OK | constants.W_OK)
    // Rights say little on a read-only or a network file system.
    path = folder
    rmdirSync(mkdtempSync(join(folder, '.doctor-')))
    return undefined
  } catch (error) {
    return { path, code: (error as NodeJS.ErrnoException).code ?? 'unknown' }
  }
}

function cureOf({ path, code }: Fault, folder: string, setting: string): string {
  if (code === 'EROFS')
    return `the file system is read-only: mount it for writing, or set ${setting} to a volume`
  if (code === 'ENOSPC') return 'the disk is full: make room'
  if (code === 'ENOTDIR') return `a file is in its place: move it, or set ${setting} to another folder`
  const [owner, user] = [statSync(path).uid, process.geteuid?.()]
  // All of the folder: the user who made one file of it has made others.
  return owner === user
    ? `chmod u+rwX ${path}`
    : `it belongs to user ${owner}, and this is user ${user}: chown -R ${user} ${folder}`
}
