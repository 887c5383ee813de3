import type { DatabaseStats } from '../../telemetry/observer.ts'
import type { Driver, Query } from '../driver.ts'
import { budgetMs, timeBudget } from '../time-budget.ts'
import { runTransaction } from '../transaction.ts'
import { type PoolConnection, unavailable } from './pool-connection.ts'
import { type Job, type JobConnection, PooledConnection } from './pooled-connection.ts'

/** How long opening a connection may take. */
export const openingSecondsMax = 1.5

/** A server that is silent for so long is gone: it ends slow statements itself before that. */
const silenceMs = 2000
/** A statement that is not answered by then probably waits for a lock. */
const slowMs = 500
/** While statements are quick, four connections keep one process busy, and fewer sessions contend less. */
const quickConnections = 4
const tickMs = 50
/** Pause after a connection that could not be opened. */
const restMs = 250
const pendingPerConnection = 100

/**
 * Connections for many short statements, so that an outage of the database does not become one of the service.
 *
 * - Every job is settled within 2 s, and so are all jobs of a request together (time-budget.ts): with an answer, the
 *   database's error, or `AppError('unavailable')`.
 * - One queue, in the order of arrival; jobs go to the least loaded connection. Only prepared statements are pipelined, and
 *   never behind a slow one.
 * - Transactions have at most half of the connections. While a statement is slow, and a second longer, no text is sent
 *   twice at a time: a locked table then blocks one connection for each kind of statement, and the others go on.
 * - A silent connection is dropped, and with it the idle and the slow ones, which may be as dead.
 * - When no connection is left and none can be opened, the database is `away`: jobs are refused at once, while one
 *   connection at a time is tried.
 *
 * A statement that was sent is never sent again: it may have been executed. `connect` rejects within `openingSecondsMax`.
 */
export function createPool(connect: () => Promise<PoolConnection>, size: number) {
  const transactionsMax = Math.max(1, Math.floor(size / 2))
  let connections: PooledConnection[] = []
  /** Jobs without an answer; and those of them that were not sent yet, in the order of arrival. */
  const pending = new Set<Job>()
  let queue: Job[] = []
  let opening = 0
  let restUntil = 0
  let slowUntil = 0
  let away: { cause: unknown } | undefined
  let isClosed = false
  // Also without work: the return of the database must be noticed.
  const clock = setInterval(checkDeadlines, tickMs).unref()

  function submit<T>(kind: Job['kind'], text: string, run: (on: JobConnection) => Promise<T>) {
    if (isClosed) return Promise.reject(unavailable('the database is closed'))
    if (away) return Promise.reject(unavailable(away.cause))
    const isFull = pending.size >= size * pendingPerConnection
    if (isFull) return Promise.reject(unavailable('too many are waiting'))
    return new Promise<T>((resolve, reject) => {
      const since = performance.now()
      const budget = timeBudget()
      const deadline = since + Math.min(budgetMs, budget?.leftMs ?? budgetMs)
      const job: Job = { kind, text, run, since, deadline, budget, resolve, reject }
      pending.add(job)
      queue.push(job)
      dispatch(since)
    })
  }

  function leave(job: Job, now: number) {
    pending.delete(job)
    if (job.budget) job.budget.leftMs -= now - job.since
  }

  function dispatch(now: number) {
    while (queue.length > 0) {
      const at = queue.findIndex(job => maySend(job, now))
      if (at < 0) return
      const job = queue[at]!
      const pooled = pickConnection(job, now)
      if (!pooled) return open(now)
      queue.splice(at, 1)
      pooled.send(job, now, answered)
    }
  }

  function answered(job: Job, now: number) {
    leave(job, now)
    dispatch(now)
  }

  function maySend({ kind, text }: Job, now: number): boolean {
    const atOnceMax = now < slowUntil ? 1 : kind === 'transaction' ? transactionsMax : size
    if (atOnceMax === size) return true
    return connections.filter(({ sent }) => sent.some(job => job.text === text)).length < atOnceMax
  }

  /** The least loaded of the first four connections, else of the others; of equals the first, so that few are used. */
  function pickConnection(job: Job, now: number): PooledConnection | undefined {
    let usable = 0
    let best: PooledConnection | undefined
    for (const pooled of connections) {
      if (pooled.isLost || pooled.isOld(now)) continue
      if (++usable > quickConnections && best) break
      if (pooled.isIdle) return pooled
      const isLessLoaded = !best || pooled.sent.length < best.sent.length
      if (isLessLoaded && pooled.mayFollow(job, now)) best = pooled
    }
    return usable < quickConnections && canOpen(now) ? undefined : best
  }

  const canOpen = (now: number) => now >= restUntil && opening + connections.length < size

  /** Opens a connection for each waiting job; one at a time while the database is away. */
  function open(now: number) {
    connections = connections.filter(({ isLost }) => !isLost)
    while (opening < (away ? 1 : queue.length) && canOpen(now)) void openOne()
  }

  async function openOne() {
    opening++
    try {
      const connection = await connect()
      if (isClosed && pending.size === 0) return connection.destroy()
      connections.push(new PooledConnection(connection))
      away = undefined
      restUntil = 0
    } catch (cause) {
      restUntil = performance.now() + restMs
      if (connections.some(({ isLost }) => !isLost)) return
      away = { cause }
      rejectAll(cause)
    } finally {
      opening--
      dispatch(performance.now())
    }
  }

  function checkDeadlines() {
    const now = performance.now()
    for (const job of pending) {
      if (job.deadline > now) continue
      leave(job, now)
      job.reject(unavailable('no answer in time'))
      if (job.kind === 'transaction') job.pooled?.destroy()
    }
    queue = queue.filter(job => pending.has(job))
    const slow = connections.filter(pooled => pooled.isSilentFor(slowMs, now))
    if (slow.length > 0) slowUntil = now + 2 * slowMs
    const areSilent = slow.some(pooled => pooled.isSilentFor(silenceMs, now))
    for (const pooled of connections) {
      if (areSilent && (pooled.isIdle || slow.includes(pooled))) pooled.destroy()
      else if (pooled.isIdle && pooled.isOld(now)) void pooled.close()
    }
    connections = connections.filter(({ isLost }) => !isLost)
    if (away) open(now)
    else dispatch(now)
  }

  function rejectAll(cause: unknown) {
    for (const job of pending) job.reject(unavailable(cause))
    pending.clear()
    queue = []
  }

  const query: Query = (text, values, options) =>
    submit(options?.prepare ? 'prepared' : 'unprepared', text, on => on.run(text, values, options))

  const transaction: Driver['transaction'] = work =>
    submit('transaction', 'begin', on => runTransaction(on, work))

  /** Refuses further jobs, waits for those without an answer (at most `seconds`), then closes every connection. */
  async function close(seconds = 5) {
    isClosed = true
    const until = performance.now() + seconds * 1000
    while (pending.size > 0 && performance.now() < until) await Bun.sleep(10)
    rejectAll('the database is closed')
    clearInterval(clock)
    await Promise.all(connections.map(pooled => pooled.close()))
  }

  function stats(): DatabaseStats {
    const open = connections.filter(({ isLost }) => !isLost)
    const idle = open.filter(({ isIdle }) => isIdle).length
    return { size, inUse: open.length - idle, idle, opening, waiting: queue.length, away: away !== undefined }
  }

  return { query, transaction, close, stats }
}
