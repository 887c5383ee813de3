import { rmSync, statSync, writeFileSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { openDraft } from '../lib/durable-file.ts'
import { onStopSignal } from '../server/stop-signal.ts'
import { print } from './terminal.ts'

/** A file that is written as a whole, or not at all. */
export interface Output {
  write(data: string | Uint8Array): Promise<void>
}

type Work<T> = (output: Output) => Promise<T>

/** Looks at the file before it gets its name; throws when it must not. */
type Check = (path: string) => Promise<void>

/** By its path a redirected stdout would be replaced. */
const standardOutput = ['-', '/dev/stdout', '/dev/fd/1', '/proc/self/fd/1']

/**
 * Writes a file that only its owner can read. It replaces an existing one when everything is on disk; a symbolic link is
 * replaced, not followed. `-` is stdout.
 */
export async function writeOutput<T>(path: string, work: Work<T>, check?: Check): Promise<T> {
  if (standardOutput.includes(path)) return work({ write: print })
  try {
    const existing = statSync(path, { throwIfNoEntry: false })
    if (existing && !existing.isFile()) throw new Error(`${path} is not a file`)
    return await replaceFile(path, work, check)
  } catch (error) {
    throw explained(error, path)
  }
}

async function replaceFile<T>(path: string, work: Work<T>, check?: Check): Promise<T> {
  using draft = openDraft(path)
  using _ = removedAtEnd(draft.path)
  const result = await work({ write: async data => writeFileSync(draft.file, data) })
  await check?.(draft.path)
  draft.publish()
  return result
}

/** For commands that use `removedAtEnd`: the default action of a signal skips the `exit` handlers, which remove files. */
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
  EACCES: folder => `permission denied in ${folder}`,
  EPERM: folder => `permission denied in ${folder}`,
  EROFS: folder => `the file system of ${folder} is read-only`,
}
