import { AppError } from '../errors.ts'
import type { DatabaseStats, Query } from './driver.ts'
import { runTransaction } from './transaction.ts'

/** One session with a database. It never comes back: when it is lost, another one is opened. */
export interface PoolConnection {
  /** True as soon as it is known that nothing more will come over it. */
  readonly lost: boolean
  /** True when the server refused writes as it was opened: then it is soon replaced. */
  readonly isReadOnly: boolean
  /** At most this many statements may be on their way. */
  readonly depthMax: number
  /** Rejects with the error that the caller will see. */
  readonly run: Query
  /** Takes leave of the server; at most a second. */
  end(): Promise<void>
  /** Drops the connection at once; what is under way on it is rejected. */
  destroy(): void
}

interface PoolOptions {
  /** Rejects within `openingSecondsMax`. */
  connect: () => Promise<PoolConnection>
  size: number
}

interface PooledConnection {
  connection: PoolConnection
  /** What was sent and not answered, oldest first. */
  sent: Job[]
  /** When it last answered, or was asked while idle; and how long its last answer took. */
  lastAnswerAt: number
  lastLatencyMs: number
  /** When it is closed, so that names are looked up again and the server's memory for it is freed. */
  closeAt: number
}

/** A statement, or a transaction, which has its connection to itself. */
interface Job {
  /** Of the statement, or `begin`. */
  text: string
  isTransaction: boolean
  /** Whether it may be sent behind others, and others behind it: only prepared statements, which are quick as a rule. */
  isShared: boolean
  run: (connection: PoolConnection) => Promise<unknown>
  deadline: number
  connection?: PoolConnection
  resolve: (result: unknown) => void
  reject: (error: unknown) => void
}

/** How long opening a connection may take. */
export const openingSecondsMax = 1.5

/** How long a query may take, waiting included. With the pause between two looks at the clock it stays below 2 s. */
const answerMs = 1900
/** How long a server may say nothing at all: it ends a slow statement by itself long before. */
const silenceMs = 2000
/** Pause between two looks at the clock, and after a connection that could not be opened. */
const tickMs = 50
const restMs = 250
const lifetimeMs = 30 * 60 * 1000
const readOnlyLifetimeMs = 500
const pendingPerConnection = 100
/** A statement is sent behind others only on a connection whose last answer took less, and is no longer ago. */
const quickMs = 1
/** While statements are that quick, this many connections keep one process busy; fewer sessions contend less. */
const quickConnections = 4
/** A statement that is not answered by then waits for something, as a rule a lock. */
const slowMs = 250

/**
 * Connections for many short statements, built so that an outage of the database stays the database's.
 *
 * - Every query is settled within 2 s: answered, rejected with the database's error, or `AppError('unavailable')`.
 *   Beyond a limit of pending queries the next ones are refused at once.
 * - One queue, in the order of arrival. Each job goes to the least loaded connection. Prepared statements are sent behind
 *   each other, but never behind one that takes long; everything else has its connection to itself.
 * - While a statement is slow (its table is locked), others with its text yield to the rest of the queue.
 * - Transactions have at most half of the connections.
 * - A connection that stays silent is dropped, and with it the idle ones, which may be as dead.
 * - When no connection is left and none can be opened, the database is away: queries are refused at once, while one
 *   connection at a time is tried. The first that opens ends that.
 *
 * A statement that was sent is never sent again: it may have been executed.
 */
export function createPool({ connect, size }: PoolOptions) {
  const pendingMax = size * pendingPerConnection
  const transactionsMax = Math.max(1, Math.floor(size / 2))
  let connections: PooledConnection[] = []
  /** Everything without an answer, in the order of its deadlines; and what of it was not sent yet. */
  const pending = new Set<Job>()
  let queue: Job[] = []
  let opening = 0
  let restUntil = 0
  let away: { cause: unknown } | undefined
  let closed = false
  let clock: Timer | undefined

  function submit<T>(
    job: Pick<Job, 'text' | 'isTransaction' | 'isShared'> & { run: (on: PoolConnection) => Promise<T> },
  ) {
    if (closed) return Promise.reject(unavailable('the database is closed'))
    if (away) return Promise.reject(unavailable(away.cause))
    if (pending.size >= pendingMax) return Promise.reject(unavailable('too many are waiting'))
    return new Promise<T>((resolve, reject) => {
      const now = performance.now()
      const waiting = { ...job, deadline: now + answerMs, resolve: resolve as Job['resolve'], reject }
      pending.add(waiting)
      queue.push(waiting)
      startClock()
      dispatch(now)
    })
  }

  /** Sends what waits, as far as there is room for it. */
  function dispatch(now: number) {
    while (queue.length > 0) {
      const at = pickJob(now)
      if (at < 0) return
      const pooled = pickConnection(now, queue[at]!)
      if (!pooled) return open(now)
      send(pooled, at === 0 ? queue.shift()! : queue.splice(at, 1)[0]!, now)
    }
  }

  /** The place in the queue of what is sent next; -1 when all of it must wait. */
  function pickJob(now: number): number {
    const slow = connections.filter(
      ({ sent, lastAnswerAt }) => sent.length > 0 && lastAnswerAt + slowMs <= now,
    )
    const mayStart = transactionsRunning() < transactionsMax
    const isFree = (job: Job) => !job.isTransaction || mayStart
    const isQuick = (job: Job) => !slow.some(({ sent }) => sent[0]!.text === job.text)
    const first = queue.findIndex(job => isFree(job) && isQuick(job))
    return first >= 0 ? first : queue.findIndex(isFree)
  }

  /** An idle one, else one that answers quickly. Of equals the first, so that under light load few are used. */
  function pickConnection(now: number, { isShared }: Job): PooledConnection | undefined {
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
      } else if (isOfTheFew && isShared && sent[0]!.isShared) {
        const isQuick = Math.max(lastLatencyMs, now - lastAnswerAt) < quickMs
        if (isQuick && sent.length < (quick?.sent.length ?? connection.depthMax)) quick = pooled
      }
    }
    return quick && (usable >= quickConnections || !canOpen(now)) ? quick : idle
  }

  function send(pooled: PooledConnection, job: Job, now: number) {
    if (pooled.sent.length === 0) pooled.lastAnswerAt = now
    pooled.sent.push(job)
    job.connection = pooled.connection
    const settled = () => {
      pending.delete(job)
      pooled.sent.shift()
      const now = performance.now()
      pooled.lastLatencyMs = now - pooled.lastAnswerAt
      pooled.lastAnswerAt = now
      dispatch(now)
    }
    job.run(pooled.connection).then(
      result => {
        job.resolve(result)
        settled()
      },
      error => {
        job.reject(error)
        settled()
      },
    )
  }

  const canOpen = (now: number) => now >= restUntil && opening + connections.length < size

  /** Opens as many connections as there are jobs waiting; one while the database is away. */
  function open(now: number) {
    connections = connections.filter(({ connection }) => !connection.lost)
    const wanted = away ? 1 : queue.length
    while (opening < wanted && canOpen(now)) {
      opening++
      connect().then(opened, refused)
    }
  }

  function opened(connection: PoolConnection) {
    opening--
    if (closed && pending.size === 0) return connection.destroy()
    away = undefined
    restUntil = 0
    const now = performance.now()
    const milliseconds = connection.isReadOnly ? readOnlyLifetimeMs : lifetimeMs
    connections.push({
      connection,
      sent: [],
      lastAnswerAt: now,
      lastLatencyMs: Number.POSITIVE_INFINITY,
      closeAt: now + milliseconds * (1 + Math.random()),
    })
    dispatch(now)
  }

  function refused(cause: unknown) {
    opening--
    restUntil = performance.now() + restMs
    if (connections.some(({ connection }) => !connection.lost)) return
    away = { cause }
    rejectAll(cause)
    // It is tried again, whether or not a query comes.
    if (!closed) startClock()
  }

  function startClock() {
    clock ??= setInterval(checkDeadlines, tickMs).unref()
  }

  function stopClock() {
    clearInterval(clock)
    clock = undefined
  }

  function checkDeadlines() {
    const now = performance.now()
    for (const job of pending) {
      if (job.deadline > now) break
      pending.delete(job)
      job.reject(unavailable('no answer in time'))
      if (job.isTransaction) job.connection?.destroy()
    }
    queue = queue.filter(job => pending.has(job))
    const someAreSilent = connections.some(pooled => isSilent(pooled, now))
    for (const pooled of connections) {
      const isIdle = pooled.sent.length === 0
      if (someAreSilent && (isIdle || isSilent(pooled, now))) pooled.connection.destroy()
      else if (isIdle && pooled.closeAt <= now) void pooled.connection.end()
    }
    connections = connections.filter(({ connection }) => !connection.lost)
    dispatch(now)
    if (away) open(now)
    else if (pending.size === 0 && connections.every(({ sent }) => sent.length === 0)) stopClock()
  }

  function rejectAll(cause: unknown) {
    for (const job of pending) job.reject(unavailable(cause))
    pending.clear()
    queue = []
  }

  const transactionsRunning = () => connections.filter(({ sent }) => sent[0]?.isTransaction).length

  return {
    query: ((text, values, options) =>
      submit({
        text,
        isTransaction: false,
        isShared: options?.prepare === true,
        run: on => on.run(text, values, options),
      })) satisfies Query,

    transaction: <T>(work: (query: Query) => Promise<T>) =>
      submit({
        text: 'begin',
        isTransaction: true,
        isShared: false,
        run: on => runTransaction(on.run, () => on.destroy(), work),
      }),

    /** Accepts no more, waits for what is under way (at most `seconds`), then closes every connection. */
    async close(seconds = 5) {
      closed = true
      const until = performance.now() + seconds * 1000
      while (pending.size > 0 && performance.now() < until) await Bun.sleep(10)
      rejectAll('the database is closed')
      stopClock()
      await Promise.all(
        connections.map(({ connection, sent }) =>
          sent.length > 0 ? connection.destroy() : connection.end(),
        ),
      )
    },

    stats(): DatabaseStats {
      const open = connections.filter(({ connection }) => !connection.lost)
      const inUse = open.filter(({ sent }) => sent.length > 0).length
      const idle = open.length - inUse
      return { size, inUse, idle, opening, waiting: queue.length, away: away !== undefined }
    },
  }
}

const isSilent = ({ sent, lastAnswerAt }: PooledConnection, now: number) =>
  sent.length > 0 && lastAnswerAt + silenceMs <= now

/** The 503 of a database that cannot answer; `cause` is for the log. */
export function unavailable(cause: unknown): AppError {
  return new AppError('unavailable', { cause: typeof cause === 'string' ? new Error(cause) : cause })
}
