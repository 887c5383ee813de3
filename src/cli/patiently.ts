import { findAppError } from '../lib/errors.ts'

const patienceMs = 30_000
const pauseMs = 500

/** Repeats work that may run twice while the database is away, for `patienceMs`. */
export async function patiently<T>(work: () => Promise<T>): Promise<T> {
  const until = performance.now() + patienceMs
  while (true) {
    try {
      return await work()
    } catch (error) {
      if (findAppError(error)?.code !== 'unavailable' || performance.now() > until) throw error
      await Bun.sleep(pauseMs)
    }
  }
}
