import { closeSync, fsyncSync, openSync } from 'node:fs'

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
 * that another user of the folder cannot prepare a file or a link there.
 */
export function openDraft(path: string): { path: string; file: number } {
  const draft = `${path}.${crypto.randomUUID()}.part`
  return { path: draft, file: openSync(draft, 'wx', 0o600) }
}
