import { AppError } from '../errors.ts'

/** One session with a database. It never comes back: when it is lost, another one is opened. */
export interface Connection {
  /** True as soon as it is known that nothing more will come over it. */
  readonly lost: boolean
  run(text: string, values: readonly unknown[]): Promise<unknown[][]>
  /** What the caller of a failed `run` is told; notes when the failure was the end of the session. */
  failure(error: unknown): unknown
  /** Takes leave of the server; at most a second. */
  end(): Promise<void>
  /** Drops the connection at once; what is under way on it is rejected. */
  destroy(): void
}

interface PoolOptions {
  /** Rejects within `openingSecondsMax`. */
  connect: () => Promise<Connection>
  size: number
}

interface Job {
  text: string
  values: readonly unknown[]
  asked: number
  started: number
  resolve: (rows: unknown[][]) => void
  reject: (error: unknown) => void
}

/** How long opening a connection may take. */
export const openingSecondsMax = 1.5

/** How long a query may take, waiting included. With the pause between two looks it stays below 2 s. */
const answerMs = 1900
/** How long a server may say nothing at all: it ends a slow statement by itself long before. */
const silenceMs = 2000
/** Pause between two looks at the clock, and after a connection that could not be opened. */
const tickMs = 50
const restMs = 250
const waitingPerConnection = 100

/**
 * Connections for many short statements, built so that an outage of the database stays the database's.
 *
 * - One statement at a time on a connection: nobody queues behind another's slow statement, and what has not been
 *   sent can be withdrawn.
 * - Every query is settled within 2 s: answered, rejected with the database's error, or `AppError('unavailable')`.
 *   One clock looks after all of them.
 * - So many may wait and no more: whoever comes then is turned away at once.
 * - A connection that stays silent is dropped, and so are the idle ones, which are of the same age.
 * - When no connection is left and none can be opened, the database is away: all are turned away at once, while
 *   one connection at a time is tried. The first that opens ends that.
 *
 * A statement that was sent is never sent again: nobody knows whether it was executed.
 */
export function createPool({ connect, size }: PoolOptions) {
  const idle: Connection[] = []
  const busy = new Map<Connection, Job>()
  const waiting: Job[] = []
  let opening = 0
  let restUntil = 0
  let away: { cause: unknown } | undefined
  let closed = false
  let clock: Timer | undefined

  function query(text: string, values: readonly unknown[]): Promise<unknown[][]> {
    if (closed) return Promise.reject(unavailable('the database is closed'))
    if (away) return Promise.reject(unavailable(away.cause))
    if (waiting.length >= size * waitingPerConnection)
      return Promise.reject(unavailable('too many are waiting'))
    return new Promise((resolve, reject) => {
      const job = { text, values, asked: performance.now(), started: 0, resolve, reject }
      const connection = takeIdle()
      if (connection) run(connection, job)
      else {
        waiting.push(job)
        open()
      }
      clock ??= setInterval(tick, tickMs).unref()
    })
  }

  function run(connection: Connection, job: Job) {
    job.started = performance.now()
    busy.set(connection, job)
    connection.run(job.text, job.values).then(
      rows => {
        job.resolve(rows)
        release(connection)
      },
      error => {
        job.reject(connection.failure(error))
        release(connection)
      },
    )
  }

  function release(connection: Connection) {
    // Whoever was dropped for its silence is no longer among us.
    if (!busy.delete(connection)) return
    give(connection)
  }

  /** The next one who waits gets the connection; nobody waits: it rests on top of the pile. */
  function give(connection: Connection) {
    if (connection.lost) return open()
    const job = waiting.shift()
    if (job) run(connection, job)
    else if (closed) void connection.end()
    else idle.push(connection)
  }

  /** The one used last: under light load few connections are used, and the server's caches stay warm. */
  function takeIdle(): Connection | undefined {
    let connection = idle.pop()
    while (connection?.lost) connection = idle.pop()
    return connection
  }

  /** Opens as many connections as there are callers waiting; one while the database is away. */
  function open() {
    if (performance.now() < restUntil) return
    const wanted = away ? 1 : waiting.length
    while (opening < wanted && opening + busy.size + idle.length < size) {
      opening++
      connect().then(opened, refused)
    }
  }

  function opened(connection: Connection) {
    opening--
    away = undefined
    restUntil = 0
    busy.delete(connection)
    give(connection)
  }

  function refused(cause: unknown) {
    opening--
    restUntil = performance.now() + restMs
    if (busy.size > 0 || idle.some(connection => !connection.lost)) return
    away = { cause }
    rejectWaiting(cause)
  }

  function tick() {
    const now = performance.now()
    while (waiting.length > 0 && waiting[0]!.asked + answerMs <= now) {
      waiting.shift()!.reject(unavailable('no connection was free in time'))
    }
    for (const [connection, job] of busy) {
      if (job.asked + answerMs > now) continue
      job.reject(unavailable('no answer in time'))
      if (job.started + silenceMs <= now) {
        busy.delete(connection)
        connection.destroy()
        dropIdle()
      }
    }
    open()
    if (busy.size + waiting.length === 0 && (!away || closed)) {
      clearInterval(clock)
      clock = undefined
    }
  }

  function dropIdle() {
    for (const connection of idle.splice(0)) connection.destroy()
  }

  function rejectWaiting(cause: unknown) {
    for (const job of waiting.splice(0)) job.reject(unavailable(cause))
  }

  /** Takes no more, waits for what is under way (at most `seconds`), then closes every connection. */
  async function close(seconds = 5) {
    closed = true
    const until = performance.now() + seconds * 1000
    while (busy.size + waiting.length > 0 && performance.now() < until) await Bun.sleep(10)
    rejectWaiting('the database is closed')
    for (const connection of busy.keys()) connection.destroy()
    await Promise.all(idle.splice(0).map(connection => connection.end()))
  }

  return { query, close }
}

/** What a caller is told when the database cannot answer; `cause` is for the log. */
export function unavailable(cause: unknown): AppError {
  return new AppError('unavailable', { cause: typeof cause === 'string' ? new Error(cause) : cause })
}
