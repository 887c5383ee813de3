import { AsyncLocalStorage } from 'node:async_hooks'
import { createFairQueue } from '../../lib/fair-queue.ts'
import type { DatabaseStats } from '../../telemetry/observer.ts'
import type { Driver, Query } from '../driver.ts'
import { unavailable } from '../pg-error.ts'
import { currentCaller, spendBudget } from '../time-budget.ts'
import { runTransaction } from '../transaction.ts'
import { OutdatedPlan } from './answers.ts'
import type { Job, PoolConnection } from './pool-connection.ts'
import { createShares } from './pool-shares.ts'

/** How long opening a connection may take. */
export const openingSecondsMax = 1.5

/** A server that is silent for so long is gone: it ends slow statements itself before that. */
const silenceMs = 2000
/** A statement that is not answered by then probably waits for a lock. */
const slowMs = 500
/** For how long that is assumed of its like: longer than it may take and wait, or a locked table would soon be forgotten. */
const slowMarkMs = 4000
/** While statements are quick, four connections keep one process busy, and fewer sessions contend less. */
const quickConnections = 4
const tickMs = 50
/** Pause after a connection that could not be opened. */
const restMs = 250
const waitingPerConnection = 100
/** A list can be asked for in ever new texts: what is not prepared, and begins alike, counts as one. */
const beginningLength = 50

/**
 * Connections for many short statements, so that an outage of the database does not become one of the service.
 *
 * - Every job is settled within 2 s, and so are all jobs of a request together (time-budget.ts): with an answer, the
 *   database's error, or `AppError('unavailable')`.
 * - One queue, in which callers take turns; jobs go to the least loaded connection. Only prepared statements are pipelined,
 *   and never behind a slow one.
 * - Neither what takes long nor one user keeps all others waiting: pool-shares.ts says how many connections each may have.
 * - A silent connection is dropped, and with it those that have answered nothing for a while, which may be as dead.
 * - When no connection is left and none can be opened, the database is `away`: jobs are refused at once, while one
 *   connection at a time is tried.
 *
 * A statement that was sent is never sent again: it may have been executed. `connect` rejects within `openingSecondsMax`.
 * `onShortage` is called when another connection cannot be opened, and those that are open go on.
 */
export function createPool(
  connect: () => Promise<PoolConnection>,
  size: number,
  onShortage: (cause: unknown) => void = () => {},
) {
  const { isFull, shareOf } = createShares(size)
  let connections: PoolConnection[] = []
  /** Jobs without an answer; and those of them that were not sent yet. */
  const pending = new Set<Job>()
  const queue = createFairQueue<Job>(size * waitingPerConnection)
  let opening = 0
  let restUntil = 0
  /** Names of statements that took long lately, and until when that is assumed. */
  const slow = new Map<string, number>()
  let away: { cause: unknown } | undefined
  let isClosed = false
  // Also without work: the return of the database must be noticed.
  const clock = setInterval(checkDeadlines, tickMs).unref()

  const query: Query = (text, values, options) => {
    const name = options?.prepare ? text : text.slice(0, beginningLength)
    const kind = slow.has(name) ? 'slow' : options?.prepare ? 'prepared' : 'unprepared'
    return submit(kind, name, on => on.run(text, values, options))
  }

  const transaction: Driver['transaction'] = work => {
    // It may begin when another caller's job has ended; its statements belong to the trace of its own request.
    const boundWork = AsyncLocalStorage.bind(work)
    return submit('transaction', 'begin', ({ run, destroy }) =>
      runTransaction({ run, destroy }, boundWork).catch(error => {
        if (!(error instanceof OutdatedPlan)) throw error
        const unprepared: Query = (text, values, options) => run(text, values, { ...options, prepare: false })
        return runTransaction({ run: unprepared, destroy }, boundWork)
      }),
    )
  }

  async function submit(kind: Job['kind'], name: string, run: Job['run']): Promise<never> {
    if (isClosed) throw unavailable('the database is closed')
    if (away) throw unavailable(away.cause)
    const caller = currentCaller()
    if (!queue.hasRoom(caller)) throw unavailable('too many are waiting')
    return spendBudget(deadline => {
      const { promise, resolve, reject } = Promise.withResolvers<never>()
      const job: Job = { kind, name, run, deadline, caller, resolve, reject }
      pending.add(job)
      const now = performance.now()
      // Mostly nothing waits: then it need not be queued.
      const isFirst = queue.size === 0 && !isFull(kind, connections)
      const connection = isFirst ? pickConnection(job, shareOf(job, connections), now) : undefined
      if (connection) void send(job, connection, now)
      else {
        queue.add(job)
        dispatch(now)
      }
      return promise
    })
  }

  /** Sends what may be sent, callers in turn. When one has to wait for a connection, nothing overtakes it. */
  function dispatch(now: number) {
    // Looked at once for all callers: while jobs are sent, no connection becomes free.
    const full = new Set<Job['kind']>()
    for (const jobs of queue) {
      const refused = new Set<Job['kind']>()
      for (const job of jobs) {
        if (full.has(job.kind) || refused.has(job.kind)) continue
        if (isFull(job.kind, connections)) {
          full.add(job.kind)
          continue
        }
        const share = shareOf(job, connections)
        const connection = pickConnection(job, share, now)
        if (connection) {
          queue.delete(job)
          queue.yieldTurn(job.caller)
          void send(job, connection, now)
          // The caller is last now, and this loop comes to its next job.
          break
        }
        if (!share) return open(now)
        // It waits for one of these, so no other of its caller's may be sent there.
        if (share.length > 0) break
        refused.add(job.kind)
      }
    }
  }

  async function send(job: Job, connection: PoolConnection, now: number) {
    connection.add(job, now)
    try {
      job.resolve((await job.run(connection)) as never)
    } catch (error) {
      job.reject(error)
    }
    const answeredAt = performance.now()
    // It is quick again: the lock is gone, or the server had paused.
    if (job.kind === 'slow' && answeredAt - now < slowMs) slow.delete(job.name)
    connection.sent.shift()
    pending.delete(job)
    queue.yieldTurn(job.caller)
    dispatch(answeredAt)
  }

  /** The least loaded of the first four connections, else of the others; of equals the first, so that few are used. */
  function pickConnection({ kind }: Job, share: PoolConnection[] | undefined, now: number) {
    let usable = 0
    let best: PoolConnection | undefined
    for (const connection of share ?? connections) {
      if (connection.isLost() || connection.isOld(now)) continue
      if (++usable > quickConnections && best) break
      if (connection.isIdle()) return connection
      const isLessLoaded = !best || connection.sent.length < best.sent.length
      if (isLessLoaded && kind === 'prepared' && connection.mayFollow(now)) best = connection
    }
    return !share && usable < quickConnections && canOpen(now) ? undefined : best
  }

  const live = () => connections.filter(connection => !connection.isLost())

  const canOpen = (now: number) => now >= restUntil && opening + live().length < size

  /** Opens a connection for each waiting job; one at a time while the database is away. */
  function open(now: number) {
    while (opening < (away ? 1 : queue.size) && canOpen(now)) void openOne()
  }

  async function openOne() {
    opening++
    try {
      const connection = await connect()
      if (isClosed && pending.size === 0) return connection.destroy()
      connections = [...live(), connection]
      away = undefined
    } catch (cause) {
      restUntil = performance.now() + restMs
      if (live().length > 0) return onShortage(cause)
      away = { cause }
      for (const job of pending) giveUp(job, cause)
    } finally {
      opening--
      dispatch(performance.now())
    }
  }

  function checkDeadlines() {
    const now = performance.now()
    for (const job of pending) {
      if (job.deadline > now) continue
      giveUp(job, 'no answer in time')
      // Not a rollback: behind a slow network its statements would keep the connection for as long again.
      if (job.kind === 'transaction') connections.find(({ sent }) => sent.includes(job))?.destroy()
    }
    const busy = live().filter(connection => !connection.isIdle())
    noteSlow(busy, now)
    const isSilent = busy.some(connection => connection.isQuietFor(silenceMs, now))
    for (const connection of live()) {
      if (isSilent && connection.isQuietFor(slowMs, now)) connection.destroy()
      else if (connection.isIdle() && connection.isOld(now)) void connection.end()
    }
    if (away) open(now)
    else dispatch(now)
  }

  /** Marks the statements that are slow now. */
  function noteSlow(busy: PoolConnection[], now: number) {
    for (const [name, until] of slow) if (until <= now) slow.delete(name)
    for (const { sent, isQuietFor } of busy) {
      const { kind, name } = sent[0]!
      if (kind !== 'transaction' && isQuietFor(slowMs, now)) slow.set(name, now + slowMarkMs)
    }
    if (slow.size === 0) return
    for (const job of pending) if (job.kind !== 'transaction' && slow.has(job.name)) job.kind = 'slow'
  }

  function giveUp(job: Job, cause: unknown) {
    pending.delete(job)
    queue.delete(job)
    job.reject(unavailable(cause))
  }

  /** Refuses further jobs, waits for those without an answer (at most `seconds`), then closes every connection. */
  async function close(seconds = 5) {
    isClosed = true
    const until = performance.now() + seconds * 1000
    while (pending.size > 0 && performance.now() < until) await Bun.sleep(10)
    for (const job of pending) giveUp(job, 'the database is closed')
    clearInterval(clock)
    await Promise.all(connections.map(({ isIdle, end, destroy }) => (isIdle() ? end() : destroy())))
  }

  function stats(): DatabaseStats {
    const idle = live().filter(connection => connection.isIdle()).length
    const inUse = live().length - idle
    return { size, inUse, idle, opening, waiting: queue.size, away: away !== undefined }
  }

  return { query, transaction, close, stats }
}
