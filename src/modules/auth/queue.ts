import { AppError, findAppError } from '../../lib/errors.ts'

/**
 * Runs work in order, `atOnce` at a time; what comes when `waitingMax` wait is `unavailable`. So is what waits when the work
 * before it is: it would wait as long again. An aborted signal removes work that still waits.
 */
export function createQueue(atOnce: number, waitingMax: number) {
  let running = 0
  const waiting = new Set<PromiseWithResolvers<void>>()

  const inTurn = async <T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> => {
    if (signal?.aborted) throw hungUp()
    if (running < atOnce) running++
    else if (waiting.size >= waitingMax) throw new AppError('unavailable')
    else await turn(signal)
    try {
      return await work()
    } catch (error) {
      if (findAppError(error)?.code === 'unavailable') refuseAll(error)
      throw error
    } finally {
      // The next one takes this place, so `running` stays the same.
      const [next] = waiting
      if (next) {
        waiting.delete(next)
        next.resolve()
      } else running--
    }
  }

  function turn(signal?: AbortSignal): Promise<void> {
    const place = Promise.withResolvers<void>()
    waiting.add(place)
    signal?.addEventListener('abort', () => {
      waiting.delete(place)
      place.reject(hungUp())
    })
    return place.promise
  }

  function refuseAll(error: unknown) {
    for (const place of waiting) place.reject(error)
    waiting.clear()
  }

  return Object.assign(inTurn, { stats: () => ({ running, waiting: waiting.size }) })
}

/** Ends the work of a request whose client has hung up; no client receives it. */
const hungUp = () => new AppError('bad_request')
