import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, resolve } from 'node:path'
import { openDraft, syncFolder } from '../config/data-dir.ts'
import { onStopSignal } from '../server/stop-signal.ts'
import { print } from './terminal.ts'

/** A file that is written as a whole, or not at all. */
export interface Output {
  write(data: string | Uint8Array): Promise<void>
}

type Work<T> = (output: Output) => Promise<T>

/** Looks at the file before it gets its name; throws when it must not. */
type Check = (path: string) => Promise<void>

/** Opening a redirected stdout by its path would overwrite it from the beginning. */
const standardOutput = ['-', '/dev/stdout', '/dev/fd/1', '/proc/self/fd/1']

/**
 * Writes a file that only its owner can read. It replaces an existing one when everything is on disk; a symbolic link is
 * replaced, not followed. Devices and pipes are written to directly. `-` is stdout.
 */
export async function writeOutput<T>(path: string, work: Work<T>, check?: Check): Promise<T> {
  if (standardOutput.includes(path)) return work({ write: data => print(data) })
  try {
    const existing = statSync(path, { throwIfNoEntry: false })
    if (!existing || existing.isFile()) return await replaceFile(path, work, check)
    if (check && !existing.isDirectory()) throw new Error(`${path} is not a file`)
    return await writeInto(path, work)
  } catch (error) {
    throw explained(error, path)
  }
}

async function replaceFile<T>(path: string, work: Work<T>, check?: Check): Promise<T> {
  const draft = openDraft(path)
  using _ = removedAtEnd(draft.path)
  const result = await fill(draft.file, async output => {
    const result = await work(output)
    fsyncSync(draft.file)
    return result
  })
  await check?.(draft.path)
  renameSync(draft.path, path)
  syncFolder(dirname(path))
  return result
}

/** For commands that use `removedAtEnd`: a signal alone would end the process without what it does at its exit. */
export const exitOnSignal = () =>
  onStopSignal(
    () => process.exit(1),
    () => process.exit(1),
  )

/** Removes a file or a folder, if it is there, when it goes out of scope, or when the process exits before that. */
export function removedAtEnd(path: string) {
  const remove = () => rmSync(path, { recursive: true, force: true })
  process.once('exit', remove)
  return {
    path,
    [Symbol.dispose]() {
      process.off('exit', remove)
      remove()
    },
  }
}

async function writeInto<T>(path: string, work: Work<T>): Promise<T> {
  const file = openSync(path, constants.O_WRONLY)
  return fill(file, output => {
    checkTarget(file, path)
    return work(output)
  })
}

/** Calls `work` with an open file, and closes it. */
async function fill<T>(file: number, work: Work<T>): Promise<T> {
  try {
    return await work({ write: async data => writeFileSync(file, data) })
  } finally {
    closeSync(file)
  }
}

/** In a folder that others can write to, another user may have put a file or a pipe in the place of the target. */
function checkTarget(file: number, path: string): void {
  const target = fstatSync(file)
  const isOurs = target.uid === process.getuid?.() || /^\/(dev|proc)\//.test(resolve(path))
  if (target.isFile() || (target.isFIFO() && !isOurs)) throw new Error(`${path} belongs to another user`)
}

function explained(error: unknown, path: string): unknown {
  const { code, path: failed } = error as NodeJS.ErrnoException
  const reason = reasons[code ?? '']
  // Errors about other files belong to `work`.
  const isOfTarget = failed === undefined || dirname(failed) === dirname(path) || failed === path
  return reason && isOfTarget
    ? new Error(`${basename(path)} was not written: ${reason(dirname(path))}`, { cause: error })
    : error
}

const reasons: Record<string, (folder: string) => string> = {
  ENOSPC: () => 'the disk is full',
  ENOENT: folder => `there is no folder ${folder}`,
  ENOTDIR: folder => `${folder} is not a folder`,
  EISDIR: () => 'it is a folder',
  EACCES: folder => `permission denied in ${folder}`,
  EPERM: folder => `permission denied in ${folder}`,
  EROFS: folder => `the file system of ${folder} is read-only`,
}
