import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { openDraft } from '../lib/durable-file.ts'
import { lockFile, prepareDataDir, secretName, unusable } from './data-dir.ts'

const secretBytes = 32
/** An operator may have written another secret into the file. */
const lengthMin = 32

/**
 * Reads the generated secret of this installation, and generates it the first time. It is readable by its owner only.
 * Processes that start together get the same one, and a power cut leaves a whole file or none. Throws an Error with one line
 * when the folder cannot be used.
 */
export function loadSecretKey(dataDir: string): string {
  const file = join(dataDir, secretName)
  try {
    if (!existsSync(file)) {
      prepareDataDir(dataDir)
      makeSecret(file)
    }
    return readSecret(file)
  } catch (cause) {
    throw unusable(dataDir, cause)
  }
}

/** Whether the folder has a secret that cannot be used. */
export function hasDamagedSecret(dataDir: string): boolean {
  const file = join(dataDir, secretName)
  return existsSync(file) && !isSecret(readFileSync(file, 'utf8'))
}

/** One process at a time checks and renames: a rename alone would replace the secret of another one. */
function makeSecret(path: string): void {
  const lock = `${secretName}.lock`
  using _ = lockFile(dirname(path), lock)
  if (!existsSync(path)) {
    using draft = openDraft(path)
    writeSync(draft.file, randomBytes(secretBytes).toString('hex'))
    draft.publish()
  }
  // A process that waits for it, or makes it again, finds the secret.
  rmSync(join(dirname(path), lock), { force: true })
}

function readSecret(file: string): string {
  const text = readFileSync(file, 'utf8')
  if (!isSecret(text)) throw new Error(`${file} is damaged: it should hold 64 hexadecimal digits`)
  return text.trim()
}

const isSecret = (text: string) => text.trim().length >= lengthMin
