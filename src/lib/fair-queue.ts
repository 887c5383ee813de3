/**
 * What waits, at most `max`: the work of each caller in the order of arrival, and the callers in turn. A hundred statements
 * of one user keep no other user waiting.
 */
export function createFairQueue<Work extends { caller: string | undefined }>(max = Number.POSITIVE_INFINITY) {
  /** The caller who is next comes first. */
  const callers = new Map<string | undefined, Set<Work>>()
  let size = 0

  function remove(work: Work) {
    const waiting = callers.get(work.caller)
    if (!waiting?.delete(work)) return
    size--
    if (waiting.size === 0) callers.delete(work.caller)
  }

  /** Lets all others go first: when work of this caller has begun, and when it has ended. */
  function yieldTurn(caller: string | undefined) {
    const waiting = callers.get(caller)
    if (!waiting) return
    callers.delete(caller)
    callers.set(caller, waiting)
  }

  return {
    /**
     * Whether one more may wait. A caller has at most as many places as are left: a half, if it is the only one, and some
     * stay free for others, however many callers take what they may. Without a caller: as long as there are any.
     */
    hasRoom(caller: string | undefined): boolean {
      const own = caller === undefined ? 0 : (callers.get(caller)?.size ?? 0)
      return own < max - size
    },

    add(work: Work) {
      callers.getOrInsertComputed(work.caller, () => new Set()).add(work)
      size++
    },

    /** What waits, of each caller in turn. */
    [Symbol.iterator]: () => callers.values(),

    /** Takes out what is next. */
    next(): Work | undefined {
      const [[work] = []] = callers.values()
      if (!work) return undefined
      remove(work)
      yieldTurn(work.caller)
      return work
    },

    delete: remove,
    yieldTurn,

    get size() {
      return size
    },
  }
}
