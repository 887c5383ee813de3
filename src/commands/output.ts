import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { syncFolder } from '../db/data-dir.ts'
import { print } from './terminal.ts'

/** Where a result goes: whole and on disk, or not at all. */
export interface Output {
  write(data: string | Uint8Array): Promise<void>
}

/**
 * Writes a file that only its owner can read. It gets its name when everything is on disk, so what was there before
 * stays until then. `-` is stdout.
 */
export async function writeOutput<T>(path: string, work: (output: Output) => Promise<T>): Promise<T> {
  if (path === '-') return work({ write: data => print(data) })
  const draft = `${path}.part`
  const file = openSync(draft, 'w', 0o600)
  try {
    const result = await work({ write: async data => writeAll(file, data) })
    fsyncSync(file)
    closeSync(file)
    renameSync(draft, path)
    syncFolder(dirname(path))
    return result
  } catch (error) {
    rmSync(draft, { force: true })
    throw named(error, path)
  }
}

/** The system may take less than it is given. */
function writeAll(file: number, data: string | Uint8Array): void {
  const bytes = typeof data === 'string' ? Buffer.from(data) : data
  for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at)
}

function named(error: unknown, path: string): unknown {
  const code = (error as NodeJS.ErrnoException).code
  return code === 'ENOSPC'
    ? new Error(`the disk is full: ${basename(path)} was not written`, { cause: error })
    : error
}
