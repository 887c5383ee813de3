import { join } from 'node:path'
import type { PGlite } from '@electric-sql/pglite'
import { clusterName, type DataDir, openDataDir } from '../../config/data-dir.ts'
import { atMost } from '../../lib/at-most.ts'
import type { DedicatedConnection, Driver, Query } from '../driver.ts'
import { databaseError, unavailable, unavailableStates } from '../pg-error.ts'
import { runTransaction } from '../transaction.ts'
import { ensureCluster, type FileSystem, openCluster } from './cluster-files.ts'
import { copyRunningCluster, freeBytes, freeBytesMin, removeLeftovers } from './copy.ts'
import { EmbeddedConnection } from './embedded-connection.ts'
import { startMaintenance } from './maintenance.ts'
import { requireUsable, versionFile } from './major.ts'
import { createTurns } from './turns.ts'
import { watchFolder } from './watch-folder.ts'

interface EmbeddedOptions {
  /** Locked until `close`. */
  dataDir: string
  /** Bytes. Writes are refused when less is free: a full disk would end the engine. */
  freeBytesMin?: number
}

/**
 * Opens PostgreSQL inside this process, on a folder; creates the database at the first start. An acknowledged write is on
 * disk. Statements run one at a time and block the event loop (docs/decisions/0002-embedded-database.md). Throws an Error
 * with one line when the folder cannot be used. `fileSystem` is for tests of power cuts.
 */
export async function openEmbedded(options: EmbeddedOptions, fileSystem?: FileSystem): Promise<Driver> {
  const dataDir = openDataDir(options.dataDir)
  try {
    const folder = join(dataDir.path, clusterName)
    await ensureCluster(folder)
    requireUsable(folder)
    await dataDir.claim(versionFile(folder))
    removeLeftovers(folder)
    const engine = await openCluster(folder, fileSystem)
    return createDriver(engine, dataDir, folder, options.freeBytesMin ?? freeBytesMin)
  } catch (error) {
    dataDir.close()
    throw error
  }
}

/** `floor`: writes are refused when fewer bytes are free. */
function createDriver(engine: PGlite, dataDir: DataDir, folder: string, floor: number): Driver {
  const connection = new EmbeddedConnection(engine)
  const place = watchFolder(versionFile(folder), dataDir.isLocked)
  const turns = createTurns()
  let closing: Promise<void> | undefined
  /** The last copy: the engine makes one at a time. */
  let copies = Promise.resolve()

  const requireOpen = () => {
    if (closing || place.isGone) throw unavailable('the embedded database is closed')
  }

  const requireSpace = () => {
    requireOpen()
    if (freeBytes(folder) < floor) throw unavailable(`fewer than ${floor / 2 ** 20} MiB are free in DATA_DIR`)
  }

  /** Runs `work` when nothing else uses the connection. */
  const alone = <T>(work: (leftMs: number) => Promise<T>): Promise<T> => {
    requireOpen()
    return turns.take(work)
  }

  const stopMaintenance = startMaintenance(async statement => {
    if (statement.startsWith('vacuum')) requireSpace()
    return alone(() => connection.execute(statement))
  })

  const run: Query = async (text, values, options) => {
    try {
      return await connection.query(text, values, options)
    } catch (cause) {
      throw isUnavailable(cause) ? unavailable(cause) : cause
    }
  }

  const shutDown = async () => {
    stopMaintenance()
    place.stop()
    // They end at the next file.
    await copies
    while (turns.present() > 0) await Bun.sleep(1)
    // It writes a last checkpoint.
    if (!place.isGone) await engine.close()
    dataDir.close()
  }

  return {
    kind: 'embedded',
    lost: place.lost,

    async query(text, values, options) {
      if (!onlyReads(text)) requireSpace()
      return alone(() => run(text, values, options))
    },

    async transaction(work) {
      requireSpace()
      const exclusive = { run, destroy: () => connection.reset() }
      return alone(leftMs => runTransaction(exclusive, query => atMost(leftMs, work(query), tooLong)))
    },

    async dedicatedConnection<T>(work: (connection: DedicatedConnection) => Promise<T>) {
      return alone(async () => {
        try {
          return await work({ execute: script => connection.execute(script) })
        } finally {
          await connection.reset()
        }
      })
    },

    copyTo(target) {
      const runAlone = (statement: string) => alone(() => connection.query(statement, []))
      const copy = copies.then(() =>
        copyRunningCluster({ run: runAlone, requireOpen }, folder, target, floor),
      )
      copies = copy.catch(() => {})
      return copy
    },

    async close(seconds = 10) {
      closing ??= shutDown()
      // Not longer: the process ends now, and the next start recovers.
      await atMost(seconds * 1000, closing, () => {})
    },

    stats() {
      const present = turns.present()
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

/** Whether it is a fault of the database: no space for a temporary file, a file that cannot be read, damage. */
const isUnavailable = (error: unknown) => unavailableStates.test(databaseError(error)?.code ?? '')

/** Everything waits for a transaction, so it is rolled back when it takes longer, as on PostgreSQL. */
const tooLong = () => {
  throw unavailable('the transaction took too long')
}
