import { AppError } from '../../lib/errors.ts'

/**
 * Runs work in order, `atOnce` at a time; what comes when `waitingMax` wait is `unavailable`. An aborted signal removes work
 * that still waits.
 */
export function createQueue(atOnce: number, waitingMax: number) {
  let running = 0
  const waiting = new Set<() => void>()

  const inTurn = async <T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> => {
    if (signal?.aborted) throw hungUp()
    if (running < atOnce) running++
    else if (waiting.size >= waitingMax) throw new AppError('unavailable')
    else await turn(signal)
    try {
      return await work()
    } finally {
      // The next one takes this place, so `running` stays the same.
      const [next] = waiting
      if (next) {
        waiting.delete(next)
        next()
      } else running--
    }
  }

  const turn = (signal?: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
      waiting.add(resolve)
      signal?.addEventListener('abort', () => {
        waiting.delete(resolve)
        reject(hungUp())
      })
    })

  return Object.assign(inTurn, { stats: () => ({ running, waiting: waiting.size }) })
}

/** Ends the work of a request whose client has hung up; no client receives it. */
const hungUp = () => new AppError('bad_request')
