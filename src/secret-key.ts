import { closeSync, fsyncSync, linkSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { prepareDataDir } from './db/data-dir.ts'

/**
 * The secret that this installation made for itself: generated once, kept in `dataDir` (0700) for its owner alone
 * (0600). Two processes that start at once end up with the same one.
 */
export function loadSecretKey(dataDir: string): string {
  const file = join(dataDir, 'secret_key')
  prepareDataDir(dataDir)
  const draft = `${file}.${process.pid}`
  try {
    return readSecret(file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  const descriptor = openSync(draft, 'w', 0o600)
  writeSync(descriptor, crypto.getRandomValues(Buffer.alloc(32)).toString('hex'))
  fsyncSync(descriptor)
  closeSync(descriptor)
  try {
    // A link, not a rename: it fails when somebody else was first, and is never half written.
    linkSync(draft, file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  } finally {
    rmSync(draft)
  }
  return readSecret(file)
}

function readSecret(file: string): string {
  const secret = readFileSync(file, 'utf8').trim()
  if (secret.length < 32) throw new Error(`${file} is damaged: it should hold 64 hexadecimal digits`)
  return secret
}
