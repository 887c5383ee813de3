import { existsSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { clusterName, type DataDir, openDataDir } from '../../config/data-dir.ts'
import { AppError } from '../../lib/errors.ts'
import type { DedicatedConnection, Driver, Query } from '../driver.ts'
import { startMaintenance } from '../maintenance.ts'
import { runTransaction } from '../transaction.ts'
import { ensureCluster, type FileSystem, openCluster } from './cluster-files.ts'
import { copyRunningCluster, type RunningEngine } from './copy.ts'
import { EmbeddedConnection } from './embedded-connection.ts'

export interface EmbeddedOptions {
  /** A path is locked until `close`; a folder that is already locked stays so. */
  dataDir: string | DataDir
  /** Bytes. Writes are refused when less is free: a full disk would end the engine. */
  freeBytesMin?: number
}

/** Below this much free space the database refuses writes. */
export const freeBytesMin = 64 * 1024 * 1024
const checkFolderMs = 1000

/**
 * Opens PostgreSQL inside this process, on a folder; creates the database at the first start. An acknowledged write is on
 * disk. Statements run one at a time and block the event loop (docs/decisions/0002-embedded-database.md). Throws an Error
 * with one line when the folder cannot be used. `fileSystem` is for tests of power cuts.
 */
export async function openEmbedded(options: EmbeddedOptions, fileSystem?: FileSystem): Promise<Driver> {
  const owned = typeof options.dataDir === 'string'
  const dataDir = typeof options.dataDir === 'string' ? openDataDir(options.dataDir) : options.dataDir
  const release = () => {
    if (owned) dataDir.close()
  }
  try {
    const folder = join(dataDir.path, clusterName)
    await ensureCluster(folder)
    const engine = await openCluster(folder, fileSystem)
    const floor = options.freeBytesMin ?? freeBytesMin
    return createDriver(engine, {
      isThere: () => existsSync(join(folder, 'PG_VERSION')),
      hasSpace: () => freeBytes(folder) >= floor,
      copyTo: (running, target) => copyRunningCluster(running, folder, target, floor),
      release,
    })
  } catch (error) {
    release()
    throw error
  }
}

type Engine = Awaited<ReturnType<typeof openCluster>>

/** The folder of the database. */
interface Folder {
  /** False when it was deleted or moved. */
  isThere(): boolean
  hasSpace(): boolean
  copyTo(running: RunningEngine, target: string): Promise<void>
  release(): void
}

function createDriver(engine: Engine, { isThere, hasSpace, copyTo, release }: Folder): Driver {
  const connection = new EmbeddedConnection(engine)
  const takeTurns = turnTaker()
  const lost = Promise.withResolvers<string>()
  let isLost = false
  let closing: Promise<void> | undefined
  /** The last copy: the engine makes one at a time. */
  let copies = Promise.resolve()
  /** Statements and transactions that run or wait. */
  let present = 0

  /** Without its folder the engine still answers from open files, but stores nothing. */
  const checkFolder = () => {
    if (isLost || closing || isThere()) return
    isLost = true
    lost.resolve('the folder of the embedded database is gone')
  }
  const watch = setInterval(checkFolder, checkFolderMs)
  watch.unref()

  const requireOpen = () => {
    if (closing || isLost) throw new AppError('unavailable')
  }

  /** Runs `work` when nothing else uses the connection. */
  const alone = async <T>(work: () => Promise<T>): Promise<T> => {
    requireOpen()
    present++
    try {
      return await engine.runExclusive(async () => {
        await takeTurns()
        return work()
      })
    } finally {
      present--
    }
  }

  const maintenance = startMaintenance(async statement => {
    requireSpace()
    return alone(() => connection.execute(statement))
  })

  const requireSpace = () => {
    checkFolder()
    if (isLost || !hasSpace()) throw new AppError('unavailable')
  }

  const shutDown = async () => {
    maintenance.stop()
    clearInterval(watch)
    // They end at the next file.
    await copies
    // It writes a last checkpoint.
    if (!isLost) await engine.close()
    release()
  }

  const run: Query = async (text, values, options) => {
    try {
      return await connection.query(text, values, options)
    } catch (cause) {
      checkFolder()
      throw isLost || isSystemFault(cause) ? new AppError('unavailable', { cause }) : cause
    }
  }

  const beforeWrite = () => {
    requireSpace()
    maintenance.due = true
  }

  return {
    kind: 'embedded',
    lost: lost.promise,

    async query(text, values, options) {
      if (!onlyReads(text)) beforeWrite()
      return alone(() => run(text, values, options))
    },

    async transaction(work) {
      beforeWrite()
      const exclusive = { run, failure: (error: unknown) => error, destroy: () => connection.reset() }
      return alone(() =>
        runTransaction(exclusive, query => atMost(transactionSecondsMax, work(query), tooLong)),
      )
    },

    async dedicatedConnection<T>(work: (connection: DedicatedConnection) => Promise<T>) {
      return alone(async () => {
        maintenance.due = true
        try {
          return await work({ execute: script => connection.execute(script) })
        } finally {
          await connection.reset()
        }
      })
    },

    copyTo(target) {
      const run = (statement: string) => alone(() => connection.query(statement, []))
      const copy = copies.then(() => copyTo({ run, requireOpen }, target))
      copies = copy.catch(() => {})
      return copy
    },

    async close(seconds = 10) {
      closing ??= shutDown()
      // Not longer: the process ends now, and the next start recovers.
      await atMost(seconds, closing, () => {})
    },

    stats() {
      const inUse = Math.min(present, 1)
      return { size: 1, inUse, idle: 1 - inUse, opening: 0, waiting: present - inUse, away: false }
    },
  }
}

/** Whether a statement only reads, judged by its words. A false negative is harmless. */
export function onlyReads(text: string): boolean {
  return /^\s*(select|with|values|show|explain)\b/i.test(text) && !writeWords.test(text)
}

const writeWords = /\b(insert|update|delete|merge|into|nextval|setval)\b/i

/**
 * The engine blocks the event loop, and so would a queue of statements. So every `turnMs` the event loop gets a turn in
 * between.
 */
function turnTaker(): () => Promise<void> {
  let last = 0
  return async () => {
    if (performance.now() - last < turnMs) return
    await new Promise<void>(resolve => setImmediate(resolve))
    last = performance.now()
  }
}

const turnMs = 5

/** SQLSTATE classes 53 (no space for a temporary file), 58 (a file that cannot be read) and XX (damaged). */
function isSystemFault(error: unknown): boolean {
  return error instanceof Error && 'code' in error && /^(53|58|XX)/.test(String(error.code))
}

/** Everything waits for a transaction, so it is rolled back when it takes longer, as on PostgreSQL. */
const transactionSecondsMax = 1.9

const tooLong = () => {
  throw new AppError('unavailable', { cause: new Error('the transaction took too long') })
}

/** Waits for `work`, but at most `seconds`; then calls `late`. */
async function atMost<T>(seconds: number, work: Promise<T>, late: () => T): Promise<T> {
  let timer: Timer | undefined
  const timeUp = new Promise<void>(resolve => {
    timer = setTimeout(resolve, seconds * 1000)
  }).then(late)
  return Promise.race([work, timeUp]).finally(() => clearTimeout(timer))
}

/** Takes 3 µs. Zero when the folder was deleted. */
function freeBytes(folder: string): number {
  try {
    const { bavail, bsize } = statfsSync(folder)
    return bavail * bsize
  } catch {
    return 0
  }
}
