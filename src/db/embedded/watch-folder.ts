import { closeSync, openSync } from 'node:fs'
import { rememberFile } from '../../lib/file-id.ts'

const checkFolderMs = 1000

/**
 * Without its folder, deleted, moved or replaced by another, the engine still answers from open files, but stores nothing, or
 * in the wrong place. Without its lock another process may open the database.
 */
export function watchFolder(versionFile: string, isLocked: () => boolean) {
  const file = openSync(versionFile, 'r')
  const isThere = rememberFile(versionFile)
  const lost = Promise.withResolvers<string>()
  const look = () => {
    place.isGone ||= !isThere() || !isLocked()
    if (place.isGone) lost.resolve('the folder of the embedded database is gone, or its lock')
  }
  const stop = () => {
    clearInterval(timer)
    look()
    closeSync(file)
  }
  const place = { isGone: false, lost: lost.promise, stop }
  const timer = setInterval(look, checkFolderMs).unref()
  return place
}
