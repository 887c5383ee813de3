import { AppError } from '../errors.ts'
import type { DatabaseStats, Driver, Query } from './driver.ts'
import { runTransaction } from './transaction.ts'

/** One session with a database. It never comes back: when it is lost, another one is opened. */
export interface PoolConnection {
  /** True as soon as it is known that nothing more will come over it. */
  readonly lost: boolean
  /** True when the server refused writes as it was opened: then it is soon replaced. */
  readonly isReadOnly: boolean
  /** At most this many statements may be on their way. */
  readonly depthMax: number
  readonly run: Query
  /** The error for the caller of a failed `run`; notes when the failure was the end of the session. */
  failure(error: unknown): unknown
  /** Takes leave of the server; at most a second. */
  end(): Promise<void>
  /** Drops the connection at once; what is under way on it is rejected. */
  destroy(): void
}

interface PooledConnection extends PoolTimes {
  connection: PoolConnection
  /** What was sent and not answered, oldest first. */
  sent: Job[]
}

interface PoolTimes {
  /** When it last answered, or was asked while idle; and how long its last answer took. */
  lastAnswerAt: number
  lastLatencyMs: number
  /** When it is replaced, so that names are looked up again and the server's memory for it is freed. */
  closeAt: number
}

/** A statement or a transaction, and its caller. */
interface Job {
  kind: 'prepared' | 'unprepared' | 'transaction'
  text: string
  run: (connection: PoolConnection) => Promise<unknown>
  deadline: number
  connection?: PoolConnection
  resolve: (result: unknown) => void
  reject: (error: unknown) => void
}

/** How long opening a connection may take. */
export const openingSecondsMax = 1.5

/** How long a job may take, waiting included. With the pause between two looks at the clock it stays below 2 s. */
const answerMs = 1900
/** How long a server may say nothing at all: it ends a slow statement by itself long before. */
const silenceMs = 2000
/** A statement that is not answered by then waits for something, as a rule a lock. */
const slowMs = 500
/** A statement is sent behind others only on a connection whose last answer took less, and is no longer ago. */
const quickMs = 5
/** While statements are that quick, this many connections keep one process busy; fewer sessions contend less. */
const quickConnections = 4
/** Pause between two looks at the clock, and after a connection that could not be opened. */
const tickMs = 50
const restMs = 250
const lifetimeMs = 30 * 60 * 1000
const readOnlyLifetimeMs = 500
const pendingPerConnection = 100

/**
 * Connections for many short statements, built so that an outage of the database stays the database's.
 *
 * - Every job is settled within 2 s: answered, rejected with the database's error, or `AppError('unavailable')`. Beyond
 *   a limit of pending jobs the next ones are refused at once.
 * - One queue, in the order of arrival. Each job goes to the least loaded connection. Prepared statements are sent behind
 *   each other, but never behind one that takes long; everything else has its connection to itself.
 * - Transactions have at most half of the connections. While a statement is slow, and a second longer, no text is on its
 *   way twice: a table that is locked costs a connection for each kind of statement, and the rest goes on.
 * - A connection that stays silent is dropped, and with it the idle and the slow ones, which may be as dead.
 * - When no connection is left and none can be opened, the database is away: jobs are refused at once, while one
 *   connection at a time is tried. The first that opens ends that.
 *
 * A statement that was sent is never sent again: it may have been executed. `connect` rejects within `openingSecondsMax`.
 */
export function createPool(connect: () => Promise<PoolConnection>, size: number) {
  const transactionsMax = Math.max(1, Math.floor(size / 2))
  let connections: PooledConnection[] = []
  /** Everything without an answer, in the order of its deadlines; and what of it was not sent yet. */
  const pending = new Set<Job>()
  let queue: Job[] = []
  let opening = 0
  let restUntil = 0
  let slowUntil = 0
  let away: { cause: unknown } | undefined
  let isClosed = false
  // It never stops: a pool that has no work must notice the return of the database, too.
  const clock = setInterval(checkDeadlines, tickMs).unref()

  function submit<T>(kind: Job['kind'], text: string, run: (connection: PoolConnection) => Promise<T>) {
    if (isClosed) return Promise.reject(unavailable('the database is closed'))
    if (away) return Promise.reject(unavailable(away.cause))
    if (pending.size >= size * pendingPerConnection)
      return Promise.reject(unavailable('too many are waiting'))
    return new Promise<T>((resolve, reject) => {
      const now = performance.now()
      const job: Job = {
        kind,
        text,
        run,
        deadline: now + answerMs,
        resolve: resolve as Job['resolve'],
        reject,
      }
      pending.add(job)
      queue.push(job)
      dispatch(now)
    })
  }

  /** Sends what waits, as far as there is room for it. */
  function dispatch(now: number) {
    while (queue.length > 0) {
      const at = pickJob(now)
      if (at < 0) return
      const pooled = pickConnection(queue[at]!, now)
      if (!pooled) return open(now)
      send(at === 0 ? queue.shift()! : queue.splice(at, 1)[0]!, pooled, now)
    }
  }

  /** The place in the queue of what is sent next; -1 when all of it must wait. */
  function pickJob(now: number): number {
    if (now >= slowUntil && queue[0]!.kind !== 'transaction') return 0
    const isOnItsWay = (text: string) => connections.some(({ sent }) => sent.some(job => job.text === text))
    const transactions = connections.filter(({ sent }) => sent[0]?.kind === 'transaction').length
    return queue.findIndex(({ kind, text }) => {
      if (kind === 'transaction' && transactions >= transactionsMax) return false
      return now >= slowUntil || !isOnItsWay(text)
    })
  }

  /** An idle one, else one that answers quickly. Of equals the first, so that under light load few are used. */
  function pickConnection({ kind }: Job, now: number): PooledConnection | undefined {
    let usable = 0
    let idle: PooledConnection | undefined
    let quick: PooledConnection | undefined
    for (const pooled of connections) {
      const { connection, sent, lastAnswerAt, lastLatencyMs, closeAt } = pooled
      if (connection.lost || closeAt <= now) continue
      const isOfTheFew = ++usable <= quickConnections
      if (sent.length === 0) {
        if (isOfTheFew) return pooled
        idle ??= pooled
      } else if (isOfTheFew && kind === 'prepared' && sent[0]!.kind === 'prepared') {
        const isQuick = Math.max(lastLatencyMs, now - lastAnswerAt) < quickMs
        if (isQuick && sent.length < (quick?.sent.length ?? connection.depthMax)) quick = pooled
      }
    }
    return quick && (usable >= quickConnections || !canOpen(now)) ? quick : idle
  }

  function send(job: Job, pooled: PooledConnection, now: number) {
    if (pooled.sent.length === 0) pooled.lastAnswerAt = now
    pooled.sent.push(job)
    job.connection = pooled.connection
    job.run(pooled.connection).then(
      result => {
        job.resolve(result)
        answered(job, pooled)
      },
      error => {
        job.reject(job.kind === 'transaction' ? error : pooled.connection.failure(error))
        answered(job, pooled)
      },
    )
  }

  function answered(job: Job, pooled: PooledConnection) {
    const now = performance.now()
    pending.delete(job)
    pooled.sent.shift()
    pooled.lastLatencyMs = now - pooled.lastAnswerAt
    pooled.lastAnswerAt = now
    dispatch(now)
  }

  const canOpen = (now: number) => now >= restUntil && opening + connections.length < size

  /** Opens as many connections as there are jobs waiting; one while the database is away. */
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
    const lifetime = (connection.isReadOnly ? readOnlyLifetimeMs : lifetimeMs) * (1 + Math.random())
    const times = { lastAnswerAt: now, lastLatencyMs: Number.POSITIVE_INFINITY, closeAt: now + lifetime }
    connections.push({ connection, sent: [], ...times })
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
      if (job.deadline > now) break
      pending.delete(job)
      job.reject(unavailable('no answer in time'))
      if (job.kind === 'transaction') job.connection?.destroy()
    }
    queue = queue.filter(job => pending.has(job))
    if (connections.some(pooled => isSilentFor(slowMs, pooled, now))) slowUntil = now + 2 * slowMs
    const areSilent = connections.some(pooled => isSilentFor(silenceMs, pooled, now))
    for (const pooled of connections) {
      const isIdle = pooled.sent.length === 0
      if (areSilent && (isIdle || isSilentFor(slowMs, pooled, now))) pooled.connection.destroy()
      else if (isIdle && pooled.closeAt <= now) void pooled.connection.end()
    }
    connections = connections.filter(({ connection }) => !connection.lost)
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

  /** Accepts no more, waits for what is under way (at most `seconds`), then closes every connection. */
  async function close(seconds = 5) {
    isClosed = true
    const until = performance.now() + seconds * 1000
    while (pending.size > 0 && performance.now() < until) await Bun.sleep(10)
    rejectAll('the database is closed')
    clearInterval(clock)
    await Promise.all(connections.map(({ connection: c, sent }) => (sent.length > 0 ? c.destroy() : c.end())))
  }

  function stats(): DatabaseStats {
    const open = connections.filter(({ connection }) => !connection.lost)
    const inUse = open.filter(({ sent }) => sent.length > 0).length
    const idle = open.length - inUse
    return { size, inUse, idle, opening, waiting: queue.length, away: away !== undefined }
  }

  return { query, transaction, close, stats }
}

const isSilentFor = (ms: number, { sent, lastAnswerAt }: PooledConnection, now: number) =>
  sent.length > 0 && lastAnswerAt + ms <= now

/** The 503 of a database that cannot answer; `cause` is for the log. */
export function unavailable(cause: unknown): AppError {
  return new AppError('unavailable', { cause: typeof cause === 'string' ? new Error(cause) : cause })
}
