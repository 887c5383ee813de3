import { isOutage } from '../../db/pg-error.ts'
import type { Client } from '../../http/client.ts'
import { networkOf } from '../../lib/client-address.ts'
import { AppError } from '../../lib/errors.ts'
import { createFairQueue } from '../../lib/fair-queue.ts'

/** Whose work waits. */
export type Waiter = Pick<Client, 'ip' | 'signal'>

/** What comes has no room; those of other addresses may have. */
class QueueFull extends AppError {
  constructor() {
    super('unavailable')
  }
}

interface Place extends PromiseWithResolvers<void> {
  caller: string | undefined
}

/**
 * Runs work `atOnce` at a time, the addresses in turn. What comes when its address has no room in the queue (`waitingMax` and
 * fair-queue.ts) is `unavailable`. So is what waits when the work before it is, as while the database is away: it would wait
 * as long again. Work of a client that hangs up leaves the queue. Without a client it is the service's own.
 */
export function createQueue(atOnce: number, waitingMax: number) {
  let running = 0
  const waiting = createFairQueue<Place>(waitingMax)

  const inTurn = async <T>(work: () => Promise<T>, client?: Waiter): Promise<T> => {
    if (client?.signal.aborted) throw hungUp()
    const caller = client && networkOf(client.ip)
    if (running < atOnce) running++
    else if (waiting.hasRoom(caller)) await turn(caller, client?.signal)
    else throw new QueueFull()
    try {
      return await work()
    } catch (error) {
      if (isOutage(error) && !(error instanceof QueueFull)) refuseAll(error)
      throw error
    } finally {
      waiting.yieldTurn(caller)
      // The next one takes this place, so `running` stays the same.
      const next = waiting.next()
      if (next) next.resolve()
      else running--
    }
  }

  function turn(caller: string | undefined, signal?: AbortSignal): Promise<void> {
    const place = { caller, ...Promise.withResolvers<void>() }
    waiting.add(place)
    signal?.addEventListener('abort', () => {
      waiting.delete(place)
      place.reject(hungUp())
    })
    return place.promise
  }

  function refuseAll(error: unknown) {
    for (const places of waiting) {
      for (const place of places) {
        waiting.delete(place)
        place.reject(error)
      }
    }
  }

  return Object.assign(inTurn, { stats: () => ({ running, waiting: waiting.size }) })
}

/** Ends the work of a request whose client has hung up; no client receives it. */
const hungUp = () => new AppError('bad_request')
