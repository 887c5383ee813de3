import type { Job, PoolConnection } from './pool-connection.ts'

/**
 * How many of a pool's connections a job may use together with others like it.
 *
 * - What takes long leaves a quarter of the connections to the rest: transactions, and statements of a text that was slow
 *   lately, have half each. So a locked table or a search through many tasks stops no other.
 * - One user cannot keep all others waiting: a caller has a quarter of the connections for its transactions, which would
 *   wait for each other, a quarter for what is slow, and three quarters for all.
 */
export function createShares(size: number) {
  const quarter = Math.max(1, Math.floor(size / 4))
  const half = Math.max(1, Math.floor(size / 2))
  const threeQuarters = Math.max(1, size - quarter)

  /** Whether it takes long. With one connection there is none to leave to others. */
  const isLong = (kind: Job['kind']) => size > 1 && (kind === 'transaction' || kind === 'slow')

  /** Whether what takes long has as many connections as it may. */
  function isFull(kind: Job['kind'], connections: PoolConnection[]): boolean {
    if (!isLong(kind)) return false
    const long = usedBy(connections, job => isLong(job.kind))
    return long.length >= threeQuarters || long.filter(({ sent }) => sent[0]!.kind === kind).length >= half
  }

  /**
   * The connections that a job has to share with others of its caller, which have as many as they may; others overtake it
   * until it can be sent there. `undefined`: it may have any.
   */
  function shareOf({ kind, caller }: Job, connections: PoolConnection[]): PoolConnection[] | undefined {
    if (caller === undefined) return undefined
    if (isLong(kind)) {
      const alike = usedBy(connections, job => job.kind === kind && job.caller === caller)
      if (alike.length >= quarter) return []
    }
    // Mostly too few have work at all.
    let busy = 0
    for (const { sent } of connections) if (sent.length > 0) busy++
    if (busy < threeQuarters) return undefined
    const own = usedBy(connections, job => job.caller === caller)
    return own.length < threeQuarters ? undefined : own
  }

  return { isFull, shareOf }
}

const usedBy = (connections: PoolConnection[], isMeant: (job: Job) => boolean) =>
  connections.filter(connection => !connection.isLost() && connection.sent.some(isMeant))
