import { existsSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { clusterName, type DataDir, openDataDir } from '../../config/data-dir.ts'
import { AppError } from '../../lib/errors.ts'
import type { Driver, Query, Session } from '../driver.ts'
import { startMaintenance } from '../maintenance.ts'
import { runTransaction } from '../transaction.ts'
import { ensureCluster, type FileSystem, openCluster } from './cluster-files.ts'
import { copyFolder } from './copy.ts'
import { Connection } from './embedded-connection.ts'

export interface EmbeddedOptions {
  /** A path is claimed here and let go by `close`; an open folder stays its owner's. */
  dataDir: string | DataDir
  /** Bytes. Writes are refused when less is free: a disk that is really full ends the engine. */
  freeBytesMin?: number
}

const freeBytesMin = 64 * 1024 * 1024
const checkFolderMs = 1000

/**
 * Opens PostgreSQL inside this process, on a folder; makes the database at the first start. An answered write is on
 * disk. One statement runs at a time and nothing else meanwhile (docs/decisions/0002-embedded-database.md).
 * Throws an Error with one line when the folder cannot be used. `fileSystem` is for tests of power cuts.
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
      copyTo: target => copyFolder(folder, target, floor),
      release,
    })
  } catch (error) {
    release()
    throw error
  }
}

type Engine = Awaited<ReturnType<typeof openCluster>>

/** What a driver needs to know of the folder. */
interface Folder {
  /** False when it was deleted or moved. */
  isThere(): boolean
  hasSpace(): boolean
  copyTo(target: string): Promise<void>
  release(): void
}

function createDriver(engine: Engine, { isThere, hasSpace, copyTo, release }: Folder): Driver {
  const connection = new Connection(engine)
  const takeTurns = turnTaker()
  const lost = Promise.withResolvers<string>()
  let isLost = false
  let closing: Promise<void> | undefined
  let present = 0

  /** Without its folder the engine answers from what it has open, and stores nothing. */
  const checkFolder = () => {
    if (isLost || closing || isThere()) return
    isLost = true
    lost.resolve('the folder of the embedded database is gone')
  }
  const watch = setInterval(checkFolder, checkFolderMs)
  watch.unref()

  /** There is one connection, so each statement, and each session, has it to itself. */
  const alone = async <T>(work: () => Promise<T>): Promise<T> => {
    if (closing || isLost) throw new AppError('unavailable')
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
    // It would write a last checkpoint.
    if (!isLost) await engine.close()
    release()
  }

  const run: Query = async (text, values, options) => {
    try {
      return await connection.query(text, values, options)
    } catch (cause) {
      checkFolder()
      throw isLost || isOfTheSystem(cause) ? new AppError('unavailable', { cause }) : cause
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

    async session<T>(work: (session: Session) => Promise<T>) {
      return alone(async () => {
        maintenance.due = true
        try {
          return await work({ execute: script => connection.execute(script) })
        } finally {
          await connection.reset()
        }
      })
    },

    copyTo: target => alone(() => copyTo(target)),

    async close(seconds = 10) {
      closing ??= shutDown()
      // Not longer: the process is about to end, and the next start recovers.
      await atMost(seconds, closing, () => {})
    },

    stats() {
      const inUse = Math.min(present, 1)
      return { size: 1, inUse, idle: 1 - inUse, opening: 0, waiting: present - inUse, away: false }
    },
  }
}

/** Whether a statement changes nothing, by its words. In doubt it is taken for a write. */
export function onlyReads(text: string): boolean {
  return /^\s*(select|with|values|show|explain)\b/i.test(text) && !writeWords.test(text)
}

const writeWords = /\b(insert|update|delete|merge|into|nextval|setval)\b/i

/**
 * The engine blocks the event loop, and a queue of statements would go on blocking it. So now and then what came in
 * meanwhile is looked at first.
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
function isOfTheSystem(error: unknown): boolean {
  return error instanceof Error && 'code' in error && /^(53|58|XX)/.test(String(error.code))
}

/** Others wait for a transaction, so it is rolled back when it is not over by then, as on PostgreSQL. */
const transactionSecondsMax = 1.9

const tooLong = () => {
  throw new AppError('unavailable', { cause: new Error('the transaction took too long') })
}

/** Waits for the work, but not longer; then `late` says what comes of it. */
async function atMost<T>(seconds: number, work: Promise<T>, late: () => T): Promise<T> {
  let timer: Timer | undefined
  const timeUp = new Promise<void>(resolve => {
    timer = setTimeout(resolve, seconds * 1000)
  }).then(late)
  return Promise.race([work, timeUp]).finally(() => clearTimeout(timer))
}

/** Takes 3 µs. None in a folder that was deleted a moment ago. */
function freeBytes(folder: string): number {
  try {
    const { bavail, bsize } = statfsSync(folder)
    return bavail * bsize
  } catch {
    return 0
  }
}
