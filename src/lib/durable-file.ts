import { closeSync, fsyncSync, openSync, renameSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'

/** Syncs the entries of a folder to disk, not the contents of its files. */
export function syncFolder(path: string): void {
  const folder = openSync(path, 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
}

/**
 * Creates a file beside the one that it will replace, readable by its owner only. Its name is random and must be free, so
 * that another user of the folder cannot prepare a file or a link there. For `using`: it is closed, and removed unless it was
 * published.
 */
export function openDraft(path: string) {
  const draft = `${path}.${crypto.randomUUID()}.part`
  const file = openSync(draft, 'wx', 0o600)
  return {
    path: draft,
    file,
    /** Puts it in the place of the file; a power cut leaves the old one or the new one as a whole. */
    publish() {
      fsyncSync(file)
      renameSync(draft, path)
      syncFolder(dirname(path))
    },
    [Symbol.dispose]() {
      closeSync(file)
      rmSync(draft, { force: true })
    },
  }
}
