import { databaseError } from './pg-error.ts'

/**
 * Precedes the statements of a transaction that changes tables. While one of them waits for a lock, all other statements on
 * that table wait behind it, so it gives up long before they do.
 */
export const shortLockWait = "set local lock_timeout = '200ms'"

const lockNotAvailable = '55P03'
const againAfterMs = 2000

/**
 * Runs a transaction that begins with `shortLockWait` again until its locks are free: a dump or a long report may hold them
 * for hours. `onWait` is called once, when the first attempt has failed.
 */
export async function untilUnlocked<T>(
  transaction: () => Promise<T>,
  onWait?: (error: unknown) => void,
): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await transaction()
    } catch (error) {
      if (databaseError(error)?.code !== lockNotAvailable) throw error
      if (attempt === 0) onWait?.(error)
      await Bun.sleep(againAfterMs)
    }
  }
}
