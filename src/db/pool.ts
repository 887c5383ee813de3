import { AppError } from '../errors.ts'
import type { DatabaseStats } from './driver.ts'
import { createSlowLane } from './slow-lane.ts'

/** One session with a database. It never comes back: when it is lost, another one is opened. */
export interface Connection {
  /** True as soon as it is known that nothing more will come over it. */
  readonly lost: boolean
  /** True when the server took no writes as it was opened: then it is soon opened anew. */
  readonly isReadOnly: boolean
  /** So many statements may be on their way, as long as the answers come fast. */
  readonly depthMax: number
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

/** A connection and how it is getting on. */
interface Line {
  connection: Connection
  /** Statements that were sent and not answered. */
  sent: number
  /** When it last answered, or was asked after a rest; and how long its last answer took, in milliseconds. */
  heard: number
  pace: number
  /** Whether all that is on its way is of a kind that was quick when it was last asked. */
  isQuick: boolean
  /** When it is closed, so that names are looked up again and the server's memory for it is freed. */
  until: number
}

interface Job {
  text: string
  values: readonly unknown[]
  deadline: number
  isSuspect?: boolean
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
const lifetimeMs = 30 * 60 * 1000
const readOnlyLifetimeMs = 500
const pendingPerConnection = 100
/** More than one statement is on its way on a connection only as long as its answers come this fast. */
const fluentMs = 20
/**
 * So many connections do as long as statements are quick: one process cannot ask more of such than four sessions answer.
 * What costs is that processes wait for each other, and the fewer there are, the less.
 */
const fewLines = 4
/** A statement that takes less is quick: it waits for no disk and no lock. */
const quickMs = 1
const quickTextsMax = 1000

/**
 * Connections for many short statements, built so that an outage of the database stays the database's.
 *
 * - Every query is settled within 2 s: answered, rejected with the database's error, or `AppError('unavailable')`.
 *   One clock looks after all of them.
 * - So many may be under way or wait, and no more: whoever comes then is turned away at once.
 * - Quick statements share a few connections, one sent behind the other, which saves a tenth of the work, the server's
 *   included. The others are for what takes longer. When every connection is busy, statements are sent behind others,
 *   too; but never behind one that takes long, and what has not been sent is withdrawn when its time is over.
 * - Statements that are slow (somebody has locked a table) share half of the connections, so that the others go on.
 * - A connection that stays silent is dropped, and so are the idle ones, which may be as dead.
 * - When no connection is left and none can be opened, the database is away: all are turned away at once, while
 *   one connection at a time is tried. The first that opens ends that.
 *
 * A statement that was sent is never sent again: nobody knows whether it was executed.
 */
export function createPool({ connect, size }: PoolOptions) {
  const pendingMax = size * pendingPerConnection
  const slowLane = createSlowLane(size)
  const quickTexts = new Set<string>()
  let lines: Line[] = []
  /** Everyone who has no answer yet, in the order of their deadlines, and those of them who have not been sent. */
  const pending = new Set<Job>()
  const waiting: Job[] = []
  let opening = 0
  let restUntil = 0
  let away: { cause: unknown } | undefined
  let closed = false
  let clock: Timer | undefined

  function query(text: string, values: readonly unknown[]): Promise<unknown[][]> {
    if (closed) return Promise.reject(unavailable('the database is closed'))
    if (away) return Promise.reject(unavailable(away.cause))
    if (pending.size >= pendingMax) return Promise.reject(unavailable('too many are waiting'))
    return new Promise((resolve, reject) => {
      const now = performance.now()
      const job = { text, values, deadline: now + answerMs, resolve, reject }
      pending.add(job)
      waiting.push(job)
      dispatch(now)
      clock ??= setInterval(tick, tickMs).unref()
    })
  }

  /** Sends what waits, as far as there is room for it. */
  function dispatch(now: number) {
    while (waiting.length > 0) {
      const line = findRoom(now)
      if (!line) return open(now)
      const job = next(now)
      if (!job) return
      if (pending.has(job)) send(line, job, now)
    }
  }

  /** Who comes next: as a rule the one who has waited longest. */
  function next(now: number): Job | undefined {
    if (slowLane.admits(waiting[0]!.text, now)) return waiting.shift()
    const first = waiting.findIndex(job => slowLane.admits(job.text, now) || !pending.has(job))
    return first < 0 ? undefined : waiting.splice(first, 1)[0]
  }

  /** Where the next statement goes: see above. Of equals the first, so that under light load few are used. */
  function findRoom(now: number): Line | undefined {
    const canGrow = lines.length + opening < size && now >= restUntil
    let usable = 0
    let quick: Line | undefined
    let spare: Line | undefined
    let fluent: Line | undefined
    for (const line of lines) {
      const { lost, depthMax } = line.connection
      if (lost || line.until <= now) continue
      const isOfTheFew = ++usable <= fewLines
      if (line.sent === 0) {
        if (isOfTheFew) return line
        spare ??= line
      } else if (line.sent < depthMax) {
        const since = now - line.heard
        if (isOfTheFew && line.isQuick && since < quickMs && line.sent < (quick?.sent ?? depthMax))
          quick = line
        if (line.pace < fluentMs && since < fluentMs && line.sent < (fluent?.sent ?? depthMax)) fluent = line
      }
    }
    if (quick && (usable >= fewLines || !canGrow)) return quick
    return spare ?? (canGrow ? undefined : fluent)
  }

  function send(line: Line, job: Job, now: number) {
    if (line.sent++ === 0) {
      line.heard = now
      line.isQuick = true
    }
    line.isQuick &&= quickTexts.has(job.text)
    job.isSuspect = slowLane.enter(job.text, now)
    // Nobody is sent behind it.
    if (job.isSuspect) {
      line.isQuick = false
      line.pace = Number.POSITIVE_INFINITY
    }
    line.connection.run(job.text, job.values).then(
      rows => {
        pending.delete(job)
        job.resolve(rows)
        answered(line, job)
      },
      error => {
        pending.delete(job)
        job.reject(line.connection.failure(error))
        answered(line, job)
      },
    )
  }

  function answered(line: Line, job: Job) {
    const now = performance.now()
    line.sent--
    line.pace = now - line.heard
    line.heard = now
    if (job.isSuspect) slowLane.leave(job.text)
    slowLane.learn(job.text, line.pace, now)
    learnQuick(job.text, line.pace)
    dispatch(now)
  }

  function learnQuick(text: string, took: number) {
    if (took >= quickMs) quickTexts.delete(text)
    else if (quickTexts.size < quickTextsMax) quickTexts.add(text)
  }

  /** Opens as many connections as there are callers waiting; one while the database is away. */
  function open(now: number) {
    lines = lines.filter(line => !line.connection.lost)
    const wanted = away ? 1 : waiting.length
    while (now >= restUntil && opening < wanted && opening + lines.length < size) {
      opening++
      connect().then(opened, refused)
    }
  }

  function opened(connection: Connection) {
    opening--
    if (closed && pending.size === 0) return connection.destroy()
    away = undefined
    restUntil = 0
    const now = performance.now()
    const milliseconds = connection.isReadOnly ? readOnlyLifetimeMs : lifetimeMs
    const until = now + milliseconds * (1 + Math.random())
    lines.push({ connection, sent: 0, heard: now, pace: Number.POSITIVE_INFINITY, isQuick: false, until })
    dispatch(now)
  }

  function refused(cause: unknown) {
    opening--
    restUntil = performance.now() + restMs
    if (lines.some(line => !line.connection.lost)) return
    away = { cause }
    rejectAll(cause)
  }

  function tick() {
    const now = performance.now()
    for (const job of pending) {
      if (job.deadline > now) break
      pending.delete(job)
      job.reject(unavailable('no answer in time'))
    }
    if (lines.some(line => isSilent(line, now))) {
      for (const line of lines) if (line.sent === 0 || isSilent(line, now)) line.connection.destroy()
    }
    for (const line of lines) if (line.sent === 0 && line.until <= now) void line.connection.end()
    dispatch(now)
    if (away) open(now)
    else if (pending.size === 0) stopClock()
  }

  function isSilent(line: Line, now: number): boolean {
    return line.sent > 0 && line.heard + silenceMs <= now
  }

  function stopClock() {
    clearInterval(clock)
    clock = undefined
  }

  function rejectAll(cause: unknown) {
    for (const job of pending) job.reject(unavailable(cause))
    pending.clear()
    waiting.length = 0
  }

  /** Takes no more, waits for what is under way (at most `seconds`), then closes every connection. */
  async function close(seconds = 5) {
    closed = true
    const until = performance.now() + seconds * 1000
    while (pending.size > 0 && performance.now() < until) await Bun.sleep(10)
    rejectAll('the database is closed')
    stopClock()
    await Promise.all(
      lines.map(({ connection, sent }) => (sent > 0 ? connection.destroy() : connection.end())),
    )
  }

  function stats(): DatabaseStats {
    const open = lines.filter(line => !line.connection.lost)
    const inUse = open.filter(line => line.sent > 0).length
    return {
      size,
      inUse,
      idle: open.length - inUse,
      opening,
      // Who gave up waiting still stands in the list.
      waiting: waiting.filter(job => pending.has(job)).length,
      away: away !== undefined,
    }
  }

  return { query, close, stats }
}

/** What a caller is told when the database cannot answer; `cause` is for the log. */
export function unavailable(cause: unknown): AppError {
  return new AppError('unavailable', { cause: typeof cause === 'string' ? new Error(cause) : cause })
}
