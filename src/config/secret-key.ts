import {
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { lockFile, openDraft, prepareDataDir, secretName, syncFolder } from './data-dir.ts'

const secretBytes = 32
/** An operator may have written another secret into the file. */
const lengthMin = 32

/**
 * Reads the generated secret of this installation, and generates it the first time. It is readable by its owner only.
 * Processes that start together get the same one, and a power cut leaves a whole file or none.
 */
export function loadSecretKey(dataDir: string): string {
  const file = join(dataDir, secretName)
  prepareDataDir(dataDir)
  if (!existsSync(file)) makeSecret(file)
  return readSecret(file)
}

function makeSecret(path: string): void {
  const draft = openDraft(path)
  try {
    writeSync(draft.file, crypto.getRandomValues(Buffer.alloc(secretBytes)).toString('hex'))
    fsyncSync(draft.file)
    closeSync(draft.file)
    publish(draft.path, path)
  } finally {
    rmSync(draft.path, { force: true })
  }
  syncFolder(dirname(path))
}

/** Renames the draft to its final name, unless another process was first. */
function publish(draft: string, path: string): void {
  try {
    // A link, not a rename: it fails when another process was first, and is never half written.
    linkSync(draft, path)
  } catch (error) {
    // Without hard links: exFAT, SMB, some of FUSE.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') renameUnderLock(draft, path)
  }
}

/** A rename would replace the file of another process, so one process at a time checks and renames. */
function renameUnderLock(draft: string, path: string): void {
  const lock = lockFile(dirname(path), `${secretName}.lock`)
  try {
    if (!existsSync(path)) renameSync(draft, path)
  } finally {
    lock.close()
  }
}

function readSecret(file: string): string {
  const secret = readFileSync(file, 'utf8').trim()
  if (secret.length < lengthMin) throw new Error(`${file} is damaged: it should hold 64 hexadecimal digits`)
  return secret
}
