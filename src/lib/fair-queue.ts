/**
 * What waits for a database: the work of each caller in the order of arrival, and the callers in turn. A hundred statements
 * of one user keep no other user waiting.
 */
export function createFairQueue<Work extends { caller: string | undefined }>() {
  /** The caller who is next comes first. */
  const callers = new Map<string | undefined, Set<Work>>()

  return {
    add(work: Work) {
      callers.getOrInsertComputed(work.caller, () => new Set()).add(work)
    },

    /** What waits, of each caller in turn. */
    [Symbol.iterator]: () => callers.values(),

    delete(work: Work) {
      const waiting = callers.get(work.caller)
      waiting?.delete(work)
      if (waiting?.size === 0) callers.delete(work.caller)
    },

    /** Lets all others go first: when work of this caller has begun, and when it has ended. */
    yieldTurn(caller: string | undefined) {
      const waiting = callers.get(caller)
      if (!waiting) return
      callers.delete(caller)
      callers.set(caller, waiting)
    },

    get isEmpty() {
      return callers.size === 0
    },

    get size() {
      return callers.values().reduce((total, waiting) => total + waiting.size, 0)
    },
  }
}
