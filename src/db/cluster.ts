import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
} from 'node:fs'
import { join } from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import initdbWasm from '@electric-sql/pglite/initdb.wasm' with { type: 'file' }
import pgliteData from '@electric-sql/pglite/pglite.data' with { type: 'file' }
import pgliteWasm from '@electric-sql/pglite/pglite.wasm' with { type: 'file' }
import { syncFolder } from './data-dir.ts'
import { DurableFS, durableParams } from './durable-fs.ts'

/** Makes the engine's file system over a folder. */
export type FileSystem = (folder: string) => DurableFS

const durable: FileSystem = folder => new DurableFS(folder)

/** Starts PostgreSQL on a folder of its own; makes a database there if the folder is empty. */
export async function openCluster(folder: string, fileSystem = durable): Promise<PGlite> {
  const fs = fileSystem(folder)
  const [pgliteWasmModule, initdbWasmModule] = await Promise.all([compile(pgliteWasm), compile(initdbWasm)])
  const options = {
    fs,
    startParams: [...durableParams(PGlite.defaultStartParams), '-c', 'TimeZone=UTC', '-c', 'jit=off'],
    pgliteWasmModule,
    initdbWasmModule,
    fsBundle: Bun.file(pgliteData),
    onStderr: fs.listen,
  }
  try {
    return await PGlite.create(options)
  } catch (cause) {
    throw new Error(`the embedded database in ${folder} does not open: ${fs.complaint}`, { cause })
  }
}

/**
 * The first start: a database in `folder`, whole or not at all. It is built beside it, put on disk, and renamed;
 * a crash in between leaves only what the next start throws away.
 */
export async function ensureCluster(folder: string): Promise<void> {
  if (existsSync(folder)) return
  const staging = `${folder}.new`
  rmSync(staging, { recursive: true, force: true })
  await (template() ? unpack(template()!, staging) : initialize(staging))
  syncTree(staging)
  renameSync(staging, folder)
  syncFolder(join(folder, '..'))
}

/** A new database, made by PostgreSQL's initdb and shut down cleanly: 2 to 5 s and 1 GB of memory. */
export async function initialize(folder: string): Promise<void> {
  mkdirSync(folder, { mode: 0o700 })
  const engine = await openCluster(folder)
  await engine.close()
}

/** The database that `scripts/make-cluster.ts` made at build time: in the executable, or in `build/`. */
function template(): string | undefined {
  const places = ['cluster.tar.gz', '../../build/cluster.tar.gz']
  return places.map(place => join(import.meta.dir, place)).find(path => existsSync(path))
}

async function unpack(archive: string, folder: string): Promise<void> {
  mkdirSync(folder, { mode: 0o700 })
  await new Bun.Archive(await Bun.file(archive).bytes()).extract(folder)
}

function syncTree(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) syncTree(path)
    else syncFile(path)
  }
  chmodSync(folder, 0o700)
  syncFolder(folder)
}

function syncFile(path: string): void {
  chmodSync(path, 0o600)
  const file = openSync(path, 'r+')
  try {
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}

async function compile(path: string): Promise<WebAssembly.Module> {
  return WebAssembly.compile(await Bun.file(path).arrayBuffer())
}
