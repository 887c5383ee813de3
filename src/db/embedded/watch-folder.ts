import { closeSync, fstatSync, openSync, statSync } from 'node:fs'
import { join } from 'node:path'

const checkFolderMs = 1000

/**
 * Without its folder, deleted, moved or replaced by another, the engine still answers from open files, but stores nothing, or
 * in the wrong place.
 */
export function watchFolder(folder: string) {
  const path = join(folder, 'PG_VERSION')
  // An open file keeps its number on its device.
  const file = openSync(path, 'r')
  const isThere = () => {
    const { dev, ino } = fstatSync(file)
    try {
      const found = statSync(path)
      return found.dev === dev && found.ino === ino
    } catch {
      return false
    }
  }
  const lost = Promise.withResolvers<string>()
  const look = () => {
    place.isGone ||= !isThere()
    if (place.isGone) lost.resolve('the folder of the embedded database is gone')
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
