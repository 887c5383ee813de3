import { constants, mkdirSync, readdirSync, rmSync, statfsSync, statSync, writeFileSync } from 'node:fs'
import { copyFile } from 'node:fs/promises'
import { join, sep } from 'node:path'
import type { Rows } from '../driver.ts'

const slot = 'copy'

/** The engine, as long as it runs. */
interface RunningEngine {
  /** Runs one statement without values. */
  run(statement: string): Promise<Rows>
  /** Throws when the engine is being closed. */
  requireOpen(): void
}

/**
 * Copies the cluster of a running engine as pg_basebackup does: files change while they are copied, and the log since the
 * start, which is copied last, makes them of one moment when the copy is opened. Statements go on meanwhile. Throws, and
 * leaves nothing behind, when fewer than `floor` bytes would be free on the disk.
 */
export async function copyRunningCluster(
  { run, requireOpen }: RunningEngine,
  from: string,
  to: string,
  floor: number,
): Promise<void> {
  requireSpace(from, floor)
  const dropSlot = () =>
    run(`select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '${slot}'`)
  // One that could not be dropped.
  await dropSlot()
  // Keeps the log from being removed by a checkpoint. Not a temporary slot: that one ends at the next error of a statement.
  await run(`select pg_create_physical_replication_slot('${slot}', true)`)
  try {
    const [start] = await run(`select pg_walfile_name(pg_backup_start('copy', true))`)
    const stop = () => run('select pg_walfile_name(lsn), labelfile from pg_backup_stop(false)')
    const isWanted = (name: string) => {
      requireOpen()
      return isCopied(name)
    }
    await copyFiles(from, to, isWanted).catch(async error => {
      await stop()
      throw error
    })
    const [end] = await stop()
    const [first, last, label] = [start![0], end![0], end![1]] as [string, string, string]
    await copyFiles(join(from, logName), join(to, logName), name => name >= first && name <= last)
    writeFileSync(join(to, 'backup_label'), label, { mode: 0o600 })
  } catch (error) {
    rmSync(to, { recursive: true, force: true })
    throw error
  } finally {
    await dropSlot()
  }
}

/**
 * Removes what a process that was killed has left, before the engine starts: the slot of a copy, which would keep all log,
 * and PostgreSQL's own lock file. Empty, as it is for a moment, it would keep the database closed for ever; the folder is
 * locked already.
 */
export function removeLeftovers(cluster: string): void {
  rmSync(join(cluster, 'pg_replslot', slot), { recursive: true, force: true })
  rmSync(join(cluster, 'postmaster.pid'), { force: true })
}

/** Below this much free space the database refuses writes. */
export const freeBytesMin = 64 * 1024 * 1024

/** Takes 3 µs. Zero when the folder was deleted. */
export function freeBytes(folder: string): number {
  try {
    const { bavail, bsize } = statfsSync(folder)
    return bavail * bsize
  } catch {
    return 0
  }
}

/** The bytes of a cluster on disk. */
export function clusterBytes(folder: string): number {
  const names = readdirSync(folder, { recursive: true }) as string[]
  return names.reduce((sum, name) => sum + (statSync(join(folder, name), mayBeGone)?.size ?? 0), 0)
}

const mayBeGone = { throwIfNoEntry: false } as const

function requireSpace(from: string, floor: number): void {
  const bytes = clusterBytes(from)
  if (freeBytes(from) - bytes < floor) {
    throw new Error(`not enough space for a copy of the database: it takes ${Math.ceil(bytes / 1e6)} MB`)
  }
}

const logName = 'pg_wal'

/** What PostgreSQL's manual leaves out of a base backup; the log is copied apart. */
const isCopied = (name: string) =>
  !/^(pg_wal|pg_replslot|pg_stat_tmp|pg_subtrans)\/.|^postmaster\.(pid|opts)$|(^|\/)pgsql_tmp/.test(
    name.replaceAll(sep, '/'),
  )

/** One file after the other, so that the reads and writes of requests are not behind many; with copy-on-write if possible. */
async function copyFiles(from: string, to: string, isWanted: (name: string) => boolean): Promise<void> {
  mkdirSync(to, { recursive: true, mode: 0o700 })
  // Sorted, a folder comes before what is in it. It is not made again when the command has removed its copy.
  const names = readdirSync(from, { recursive: true }) as string[]
  for (const name of names.sort()) {
    if (!isWanted(name)) continue
    const path = join(from, name)
    if (statSync(path, mayBeGone)?.isDirectory()) mkdirSync(join(to, name), { mode: 0o700 })
    else await copyIfThere(path, join(to, name))
  }
}

/** A table that was dropped meanwhile has no file any more. */
async function copyIfThere(from: string, to: string): Promise<void> {
  try {
    await copyFile(from, to, constants.COPYFILE_FICLONE)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || statSync(from, mayBeGone)) throw error
  }
}
