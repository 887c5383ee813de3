import { statSync } from 'node:fs'

/** Device and inode: the same for every name of a file, and no other file's as long as that is open. Empty without a file. */
export function fileId(path: string): string {
  try {
    const { dev, ino } = statSync(path, { bigint: true })
    return `${dev}:${ino}`
  } catch {
    return ''
  }
}

/** Returns whether the path still leads to the file that it leads to now, which must stay open. */
export function rememberFile(path: string): () => boolean {
  const known = fileId(path)
  return () => known !== '' && fileId(path) === known
}
