import { closeSync, fsyncSync, linkSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { openDraft, prepareDataDir, secretName } from './db/data-dir.ts'

/**
 * The secret that this installation made for itself: generated once, kept in `dataDir` (0700) for its owner alone
 * (0600). Two processes that start at once end up with the same one.
 */
export function loadSecretKey(dataDir: string): string {
  const file = join(dataDir, secretName)
  prepareDataDir(dataDir)
  try {
    return readSecret(file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  const draft = openDraft(file)
  writeSync(draft.file, crypto.getRandomValues(Buffer.alloc(32)).toString('hex'))
  fsyncSync(draft.file)
  closeSync(draft.file)
  try {
    // A link, not a rename: it fails when somebody else was first, and is never half written.
    linkSync(draft.path, file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  } finally {
    rmSync(draft.path)
  }
  return readSecret(file)
}

function readSecret(file: string): string {
  const secret = readFileSync(file, 'utf8').trim()
  if (secret.length < 32) throw new Error(`${file} is damaged: it should hold 64 hexadecimal digits`)
  return secret
}
