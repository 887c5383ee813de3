import { chmodSync, existsSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import initdbWasm from '@electric-sql/pglite/initdb.wasm' with { type: 'file' }
import pgliteData from '@electric-sql/pglite/pglite.data' with { type: 'file' }
import pgliteWasm from '@electric-sql/pglite/pglite.wasm' with { type: 'file' }
import { syncFolder } from '../../lib/durable-file.ts'
import { archiveName } from './cluster-archive.macro.ts' with { type: 'macro' }
import { DurableFS } from './durable-fs.ts'
import { notOurs } from './major.ts'

/** Creates the engine's file system for a folder. */
export type FileSystem = (folder: string) => DurableFS

const onDisk: FileSystem = folder => new DurableFS(folder)

const parameters = [
  'jit=off',
  // Resident memory from the start; a page outside of it is in the system's cache, a copy of 8 kB away.
  'shared_buffers=16MB',
  // By default a checkpoint keeps up to 1 GB of old log for later use, more than a small disk may have.
  'max_wal_size=64MB',
  'min_wal_size=32MB',
  // PostgreSQL's own protocol for durability; PGlite's parameters switch it off (`-F`). `fdatasync`, the default method,
  // does nothing in WebAssembly.
  'fsync=on',
  'wal_sync_method=fsync',
]

const startParams = [...PGlite.defaultStartParams, ...parameters.flatMap(setting => ['-c', setting])]

/** Compiled once in a process: further engines start with the machine code that the first one has made of it. */
let pgliteModule: Promise<WebAssembly.Module> | undefined

/** Starts PostgreSQL on the folder of a database; where there is no PG_VERSION, PGlite makes a new one first. */
export async function openCluster(folder: string, fileSystem = onDisk): Promise<PGlite> {
  const fs = fileSystem(folder)
  pgliteModule ??= compile(pgliteWasm)
  const [pgliteWasmModule, initdbWasmModule] = await Promise.all([pgliteModule, compile(initdbWasm)])
  const options = {
    fs,
    startParams,
    pgliteWasmModule,
    initdbWasmModule,
    fsBundle: Bun.file(pgliteData),
    onStderr: fs.listen,
  }
  try {
    const engine = await PGlite.create(options)
    fs.isOpen = true
    return engine
  } catch (cause) {
    const reason = fs.lastError ?? String(cause)
    if (reason.endsWith('Permission denied')) throw notOurs(folder, reason)
    throw new Error(`the embedded database in ${folder} does not open: ${reason}`, { cause })
  }
}

/**
 * Creates the database at the first start, completely or not at all: it is built beside `folder`, synced and renamed. After
 * a crash in between the next start removes the rest.
 */
export async function ensureCluster(folder: string): Promise<void> {
  if (existsSync(folder)) return
  const staging = `${folder}.new`
  rmSync(staging, { recursive: true, force: true })
  const archive = template()
  try {
    if (archive) await new Bun.Archive(await Bun.file(archive).bytes()).extract(staging)
    else await initialize(staging)
    await syncTree(staging)
    renameSync(staging, folder)
    syncFolder(join(folder, '..'))
  } catch (cause) {
    rmSync(staging, { recursive: true, force: true })
    const reason = (cause as Error).message
    throw new Error(
      `no database can be made in ${folder} (${reason}): it needs 30 MB and 500 files, see df and df -i`,
      { cause },
    )
  }
}

/**
 * Creates a database by PostgreSQL's initdb and shuts it down: 2 to 5 s and 1 GB of memory. The two template databases are
 * dropped: they are two thirds of the files, and there are no further databases.
 */
export async function initialize(folder: string): Promise<void> {
  const engine = await openCluster(folder)
  await engine.exec(`update pg_database set datistemplate = false where datname <> 'postgres'`)
  for (const template of ['template0', 'template1']) await engine.exec(`drop database ${template}`)
  await engine.close()
}

/** The migrated database that `scripts/make-cluster.ts` has made at build time: in the executable, or in `build/`. */
export function template(): string | undefined {
  const places = ['', '../../../build']
  return places.map(place => join(import.meta.dir, place, archiveName())).find(path => existsSync(path))
}

/** Syncs a folder and everything in it to disk, readable by its owner only. Several files at a time: each sync waits. */
export async function syncTree(folder: string): Promise<void> {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true })
  const paths = (wanted: typeof entries) => wanted.map(entry => join(entry.parentPath, entry.name))
  const files = paths(entries.filter(entry => entry.isFile())).values()
  const worker = async () => {
    for (const path of files) await syncFile(path)
  }
  await Promise.all(Array.from({ length: 16 }, worker))
  for (const path of [folder, ...paths(entries.filter(entry => entry.isDirectory()))]) {
    chmodSync(path, 0o700)
    syncFolder(path)
  }
}

async function syncFile(path: string): Promise<void> {
  await using file = await open(path, 'r+')
  await file.chmod(0o600)
  await file.sync()
}

async function compile(path: string): Promise<WebAssembly.Module> {
  return WebAssembly.compile(await Bun.file(path).arrayBuffer())
}
