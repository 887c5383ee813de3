import { constants, mkdirSync, readdirSync, rmSync, statfsSync, statSync } from 'node:fs'
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'

const atOnce = 8

/**
 * Copies a folder, with copy-on-write where the file system has it. Throws, and leaves nothing behind, when fewer than
 * `freeBytesMin` bytes would be free on the disk.
 */
export async function copyFolder(from: string, to: string, freeBytesMin: number): Promise<void> {
  const entries = readdirSync(from, { recursive: true, withFileTypes: true })
  const names = entries.map(entry => ({
    entry,
    name: join(entry.parentPath, entry.name).slice(from.length + 1),
  }))
  const files = names.filter(({ entry }) => entry.isFile()).map(({ name }) => name)
  const bytes = files.reduce((sum, name) => sum + statSync(join(from, name)).size, 0)
  const { bavail, bsize } = statfsSync(from)
  if (bavail * bsize - bytes < freeBytesMin) {
    throw new Error(`not enough space for a copy of the database: it takes ${Math.ceil(bytes / 1e6)} MB`)
  }
  try {
    mkdirSync(to, { recursive: true, mode: 0o700 })
    for (const { entry, name } of names) {
      if (entry.isDirectory()) mkdirSync(join(to, name), { recursive: true, mode: 0o700 })
    }
    const rest = files.values()
    const worker = async () => {
      for (const name of rest) await copyFile(join(from, name), join(to, name), constants.COPYFILE_FICLONE)
    }
    await Promise.all(Array.from({ length: atOnce }, worker))
  } catch (error) {
    rmSync(to, { recursive: true, force: true })
    throw error
  }
}
