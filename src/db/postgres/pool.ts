import { AppError } from '../../lib/errors.ts'
import type { DatabaseStats } from '../../telemetry/observer.ts'
import type { Driver, Query } from '../driver.ts'
import { budgetMs, timeBudget } from '../time-budget.ts'
import { runTransaction } from '../transaction.ts'

/** A connection that is never opened again: when it is lost, the pool opens another one. */
export interface PoolConnection {
  /** True as soon as no more answers can be expected. */
  readonly lost: boolean
  /** True when the server refused writes at the handshake; the connection is replaced soon. */
  readonly isReadOnly: boolean
  /** The number of statements that may be sent before the first is answered. */
  readonly depthMax: number
  readonly run: Query
  /** The error for the caller of a failed `run`; notes whether the failure was the end of the connection. */
  failure(error: unknown): unknown
  /** Closes the connection within a second. */
  end(): Promise<void>
  /** Closes it at once; unanswered statements are rejected. */
  destroy(): void
}

interface PooledConnection {
  connection: PoolConnection
  /** Jobs without an answer, oldest first. */
  sent: Job[]
  /** When the last answer came, or a statement was sent while idle; and how long that answer took. */
  lastAnswerAt: number
  lastLatencyMs: number
  /** When it is replaced, to look up names again and free the server's memory for it. */
  closeAt: number
}

/** A statement or a transaction, and its caller. */
interface Job {
  kind: 'prepared' | 'unprepared' | 'transaction'
  text: string
  run: (connection: PoolConnection) => Promise<unknown>
  since: number
  deadline: number
  /** What its request has left for all of its statements. */
  budget: { leftMs: number } | undefined
  connection?: PoolConnection
  resolve: (result: never) => void
  reject: (error: unknown) => void
}

/** How long opening a connection may take. */
export const openingSecondsMax = 1.5

/** A server that is silent for so long is gone: it ends slow statements itself before that. */
const silenceMs = 2000
/** A statement that is not answered by then probably waits for a lock. */
const slowMs = 500
/** Statements are pipelined only on a connection whose last answer was that quick and that recent. */
const quickMs = 5
/** While statements are quick, four connections keep one process busy, and fewer sessions contend less. */
const quickConnections = 4
const tickMs = 50
/** Pause after a connection that could not be opened. */
const restMs = 250
const lifetimeMs = 30 * 60 * 1000
const readOnlyLifetimeMs = 500
const pendingPerConnection = 100

/**
 * Connections for many short statements, so that an outage of the database does not become one of the service.
 *
 * - Every job is settled within 2 s, and all jobs of a request together (`TimeBudget`): with an answer, the database's
 *   error, or `AppError('unavailable')`.
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

  function submit<T>(kind: Job['kind'], text: string, run: (connection: PoolConnection) => Promise<T>) {
    if (isClosed) return Promise.reject(unavailable('the database is closed'))
    if (away) return Promise.reject(unavailable(away.cause))
    const isFull = pending.size >= size * pendingPerConnection
    if (isFull) return Promise.reject(unavailable('too many are waiting'))
    return new Promise<T>((resolve, reject) => {
      const now = performance.now()
      const budget = timeBudget()
      const deadline = now + Math.min(budgetMs, budget?.leftMs ?? budgetMs)
      const job: Job = { kind, text, run, since: now, deadline, budget, resolve, reject }
      pending.add(job)
      queue.push(job)
      dispatch(now)
    })
  }

  function dispatch(now: number) {
    while (queue.length > 0) {
      const at = pickJob(now)
      if (at < 0) return
      const pooled = pickConnection(queue[at]!, now)
      if (!pooled) return open(now)
      send(at === 0 ? queue.shift()! : queue.splice(at, 1)[0]!, pooled, now)
    }
  }

  /** The index of the next job to be sent; -1 when all of them must wait. */
  function pickJob(now: number): number {
    if (now >= slowUntil && queue[0]!.kind !== 'transaction') return 0
    return queue.findIndex(({ kind, text }) => {
      const atOnce = kind === 'transaction' ? transactionsMax : size
      const isSent = ({ sent }: PooledConnection) => sent.some(job => job.text === text)
      return connections.filter(isSent).length < (now < slowUntil ? 1 : atOnce)
    })
  }

  /** An idle connection, else a quick one. Of equals the first, so that few are used under light load. */
  function pickConnection({ kind }: Job, now: number): PooledConnection | undefined {
    let usable = 0
    let idle: PooledConnection | undefined
    let quick: PooledConnection | undefined
    // One pass without arrays of its own: this runs for every statement.
    for (const pooled of connections) {
      const { connection, sent, lastAnswerAt, lastLatencyMs, closeAt } = pooled
      if (connection.lost || closeAt <= now) continue
      const isOfTheFew = ++usable <= quickConnections
      if (isIdle(pooled)) {
        if (isOfTheFew) return pooled
        idle ??= pooled
      } else if (isOfTheFew && kind === 'prepared' && sent[0]!.kind === 'prepared') {
        const isQuick = Math.max(lastLatencyMs, now - lastAnswerAt) < quickMs
        if (isQuick && sent.length < (quick?.sent.length ?? connection.depthMax)) quick = pooled
      }
    }
    const isBusy = usable >= quickConnections || !canOpen(now)
    return (isBusy ? quick : undefined) ?? idle
  }

  function send(job: Job, pooled: PooledConnection, now: number) {
    if (isIdle(pooled)) pooled.lastAnswerAt = now
    pooled.sent.push(job)
    job.connection = pooled.connection
    const settled = () => {
      const now = performance.now()
      leave(job, now)
      pooled.sent.shift()
      pooled.lastLatencyMs = now - pooled.lastAnswerAt
      pooled.lastAnswerAt = now
      dispatch(now)
    }
    job.run(pooled.connection).then(
      result => {
        job.resolve(result as never)
        settled()
      },
      error => {
        job.reject(job.kind === 'transaction' ? error : pooled.connection.failure(error))
        settled()
      },
    )
  }

  const canOpen = (now: number) => now >= restUntil && opening + connections.length < size

  /** Opens a connection for each waiting job; one at a time while the database is away. */
  function open(now: number) {
    connections = connections.filter(({ connection }) => !connection.lost)
    while (opening < (away ? 1 : queue.length) && canOpen(now)) {
      opening++
      connect().then(opened, refused)
    }
  }

  function opened(connection: PoolConnection) {
    opening--
    if (isClosed && pending.size === 0) return connection.destroy()
    away = undefined
    restUntil = 0
    const now = performance.now()
    const closeAt = now + (connection.isReadOnly ? readOnlyLifetimeMs : lifetimeMs) * (1 + Math.random())
    connections.push({ connection, sent: [], lastAnswerAt: now, lastLatencyMs: Infinity, closeAt })
    dispatch(now)
  }

  function refused(cause: unknown) {
    opening--
    restUntil = performance.now() + restMs
    if (connections.some(({ connection }) => !connection.lost)) return
    away = { cause }
    rejectAll(cause)
  }

  function checkDeadlines() {
    const now = performance.now()
    for (const job of pending) {
      if (job.deadline > now) continue
      leave(job, now)
      job.reject(unavailable('no answer in time'))
      if (job.kind === 'transaction') job.connection?.destroy()
    }
    queue = queue.filter(job => pending.has(job))
    if (connections.some(pooled => isSilentFor(slowMs, pooled, now))) slowUntil = now + 2 * slowMs
    const areSilent = connections.some(pooled => isSilentFor(silenceMs, pooled, now))
    for (const pooled of connections) {
      if (areSilent && (isIdle(pooled) || isSilentFor(slowMs, pooled, now))) pooled.connection.destroy()
      else if (isIdle(pooled) && pooled.closeAt <= now) void pooled.connection.end()
    }
    connections = connections.filter(({ connection }) => !connection.lost)
    if (away) open(now)
    else dispatch(now)
  }

  function leave(job: Job, now: number) {
    pending.delete(job)
    if (job.budget) job.budget.leftMs -= now - job.since
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
    await Promise.all(
      connections.map(pooled => (isIdle(pooled) ? pooled.connection.end() : pooled.connection.destroy())),
    )
  }

  function stats(): DatabaseStats {
    const open = connections.filter(({ connection }) => !connection.lost)
    const idle = open.filter(isIdle).length
    return { size, inUse: open.length - idle, idle, opening, waiting: queue.length, away: away !== undefined }
  }

  return { query, transaction, close, stats }
}

const isIdle = ({ sent }: PooledConnection) => sent.length === 0

const isSilentFor = (ms: number, { sent, lastAnswerAt }: PooledConnection, now: number) =>
  sent.length > 0 && lastAnswerAt + ms <= now

/** The 503 of a database that cannot answer; `cause` is for the log. */
export function unavailable(cause: unknown): AppError {
  return new AppError('unavailable', { cause: typeof cause === 'string' ? new Error(cause) : cause })
}
