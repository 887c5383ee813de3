import {
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { lockFile, prepareDataDir, syncFolder } from './db/data-dir.ts'

const secretBytes = 32
/** An operator may have put a secret of their own there. */
const lengthMin = 32

/**
 * The secret that this installation made for itself: generated once, kept in `dataDir` (0700) for its owner alone
 * (0600). Processes that start at once end up with the same one, and a power cut leaves all of it or none.
 */
export function loadSecretKey(dataDir: string): string {
  const file = join(dataDir, 'secret_key')
  prepareDataDir(dataDir)
  if (!existsSync(file)) makeSecret(file)
  return readSecret(file)
}

function makeSecret(file: string): void {
  // Not by the process id: in containers that share the folder each process may be number 1.
  const draft = `${file}.${crypto.randomUUID()}`
  const descriptor = openSync(draft, 'wx', 0o600)
  writeSync(descriptor, crypto.getRandomValues(Buffer.alloc(secretBytes)).toString('hex'))
  fsyncSync(descriptor)
  closeSync(descriptor)
  try {
    publish(draft, file)
  } finally {
    rmSync(draft, { force: true })
  }
  syncFolder(dirname(file))
}

/** Gives the draft its name, unless another process was first. */
function publish(draft: string, file: string): void {
  try {
    // A link, not a rename: it fails when somebody else was first, and is never half written.
    linkSync(draft, file)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST') return
    if (!withoutLinks.includes(code!)) throw error
    renameUnderLock(draft, file)
  }
}

/** What a file system says that has no hard links: exFAT, SMB, some of FUSE. */
const withoutLinks = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']

/** A rename is never half written either, but would replace the other's file: so one process at a time checks and renames. */
function renameUnderLock(draft: string, file: string): void {
  const lock = lockFile(dirname(file), 'secret_key.lock')
  try {
    if (!existsSync(file)) renameSync(draft, file)
  } finally {
    lock.close()
  }
}

function readSecret(file: string): string {
  const secret = readFileSync(file, 'utf8').trim()
  if (secret.length < lengthMin) throw new Error(`${file} is damaged: it should hold 64 hexadecimal digits`)
  return secret
}
