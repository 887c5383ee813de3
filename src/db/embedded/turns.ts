import { atMost } from '../../lib/at-most.ts'
import { eventLoopTurns } from '../../lib/event-loop-turns.ts'
import { createFairQueue } from '../../lib/fair-queue.ts'
import { unavailable } from '../pg-error.ts'
import { budgetMs, currentCaller, spendBudget } from '../time-budget.ts'

/** The engine blocks the event loop, and so would work without a pause. */
const pauseEveryMs = 5

/**
 * Runs one piece of work at a time, the callers in turn, and the event loop in between. A request that has waited for
 * longer than its time budget is `unavailable`; the service's own work waits as long as it takes.
 */
export function createTurns() {
  const waiting = createFairQueue<{ caller: string | undefined; start: () => void }>()
  const pause = eventLoopTurns(pauseEveryMs)
  let isBusy = false

  /** `work` receives the milliseconds that it may take. */
  const take = <T>(work: (leftMs: number) => Promise<T>): Promise<T> =>
    spendBudget(async deadline => {
      const caller = currentCaller()
      if (isBusy) await turn(caller, deadline)
      isBusy = true
      try {
        await pause()
        return await work(caller ? deadline - performance.now() : budgetMs)
      } finally {
        waiting.yieldTurn(caller)
        const next = waiting.next()
        if (next) next.start()
        else isBusy = false
      }
    })

  function turn(caller: string | undefined, deadline: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const place = { caller, start: resolve }
    waiting.add(place)
    if (!caller) return promise
    return atMost(deadline - performance.now(), promise, () => {
      waiting.delete(place)
      throw unavailable('no turn in time')
    })
  }

  /** How much runs or waits. */
  const present = () => Number(isBusy) + waiting.size

  return { take, present }
}
