import type { Query } from '../driver.ts'
import { forCaller, isServerError } from './connection-errors.ts'
import type { SingleConnection } from './single-connection.ts'

/** A statement or a transaction, and its caller. */
export interface Job {
  /** `slow`: a statement of a name that took long lately. */
  kind: 'prepared' | 'unprepared' | 'slow' | 'transaction'
  /** Of a statement its text, or the beginning of that. */
  name: string
  run: (connection: PoolConnection) => Promise<unknown>
  deadline: number
  caller: string | undefined
  resolve: (result: never) => void
  reject: (error: unknown) => void
}

export type PoolConnection = ReturnType<typeof createPoolConnection>

/** Prepared statements that may be on their way, while the last answer was that quick and that recent. */
const depthMax = 4
const quickMs = 5
/** Each prepared statement costs the server memory for as long as the connection lives. */
const preparedMax = 256
const lifetimeMs = 30 * 60 * 1000
/** For a server that refused writes at the handshake. */
const readOnlyLifetimeMs = 500

type Single = Pick<
  SingleConnection,
  'lost' | 'isReadOnly' | 'isProxied' | 'ask' | 'cancel' | 'end' | 'destroy'
>

/**
 * A connection with its jobs, and how it is doing. It is never opened again: the pool opens another one.
 *
 * Behind a proxy that pools transactions the next statement may go to another session of the server. So nothing is
 * prepared there and nothing is pipelined: PgBouncer before 1.21 then mixes up answers, and values reach another client's
 * statement.
 */
export function createPoolConnection(single: Single, mayPrepare: boolean) {
  const canPrepare = mayPrepare && !single.isProxied
  const prepared = new Set<string>()
  /** Jobs without an answer, oldest first. */
  const sent: Job[] = []
  /** When the last answer came, or a job was sent while idle; and how long that answer took. */
  let lastAnswerAt = performance.now()
  let lastLatencyMs = Number.POSITIVE_INFINITY
  /** When it is replaced, to look up names again and free the server's memory for it. */
  const closeAt = lastAnswerAt + (single.isReadOnly ? readOnlyLifetimeMs : lifetimeMs) * (1 + Math.random())

  const isIdle = () => sent.length === 0
  const isQuietFor = (ms: number, now: number) => lastAnswerAt + ms <= now

  function mayPrepareText(text: string): boolean {
    if (canPrepare && prepared.size < preparedMax) prepared.add(text)
    return prepared.has(text)
  }

  /** Runs a statement of a job: a transaction is not slow as long as its statements are answered. */
  const run: Query = async (text, values, options) => {
    try {
      const prepare = options?.prepare === true && mayPrepareText(text)
      return await single.ask(text, values, { ...options, prepare })
    } catch (error) {
      const code = isServerError(error) ? error.code : undefined
      // The server has become a standby, or the name has moved to another one.
      if (code === '25006' && !single.isReadOnly) void single.end()
      // The session is in a failed transaction that no caller will end.
      if (code === '25P02' && sent[0]?.kind !== 'transaction') single.destroy()
      throw forCaller(error)
    } finally {
      const now = performance.now()
      lastLatencyMs = now - lastAnswerAt
      lastAnswerAt = now
    }
  }

  return {
    sent,
    run,
    isLost: () => single.lost,
    isIdle,
    /** Whether its time is over: it receives no more jobs. */
    isOld: (now: number) => closeAt <= now,
    /** Whether nothing was answered for that long. */
    isQuietFor,
    /** Whether a prepared statement may be sent behind others: behind a few prepared ones, while they are quick. */
    mayFollow(now: number): boolean {
      const isPrepared = canPrepare && sent[0]?.kind === 'prepared'
      return isPrepared && sent.length < depthMax && lastLatencyMs < quickMs && !isQuietFor(quickMs, now)
    },
    /** Records a job as sent. */
    add(job: Job, now: number) {
      if (isIdle()) lastAnswerAt = now
      sent.push(job)
    },
    /** Closes it within a second. */
    end: single.end,
    /** Closes it at once; unanswered statements are rejected. */
    destroy() {
      const cancelled = isIdle() ? undefined : single.cancel().catch(() => {})
      single.destroy()
      return cancelled
    },
  }
}
