import { constants, mkdirSync, readdirSync, rmSync, statfsSync, statSync } from 'node:fs'
import { cp } from 'node:fs/promises'
import { dirname, join } from 'node:path'

/**
 * Copies a folder, with copy-on-write where the file system has it. Throws, and leaves nothing behind, when fewer than
 * `freeBytesMin` bytes would be free on the disk.
 */
export async function copyFolder(from: string, to: string, freeBytesMin: number): Promise<void> {
  const names = readdirSync(from, { recursive: true }) as string[]
  const bytes = names.reduce((sum, name) => sum + statSync(join(from, name)).size, 0)
  const { bavail, bsize } = statfsSync(from)
  if (bavail * bsize - bytes < freeBytesMin) {
    throw new Error(`not enough space for a copy of the database: it takes ${Math.ceil(bytes / 1e6)} MB`)
  }
  try {
    mkdirSync(dirname(to), { recursive: true, mode: 0o700 })
    await cp(from, to, { recursive: true, mode: constants.COPYFILE_FICLONE })
  } catch (error) {
    rmSync(to, { recursive: true, force: true })
    throw error
  }
}
