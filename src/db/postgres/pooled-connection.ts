import type { TimeBudget } from '../time-budget.ts'
import type { PoolConnection } from './pool-connection.ts'

/** What a job runs on. */
export type JobConnection = Pick<PoolConnection, 'run' | 'failure' | 'destroy'>

/** A statement or a transaction, and its caller. */
export interface Job {
  kind: 'prepared' | 'unprepared' | 'transaction'
  text: string
  run: (connection: JobConnection) => Promise<unknown>
  since: number
  deadline: number
  budget: TimeBudget | undefined
  /** Where it was sent. */
  pooled?: PooledConnection
  resolve: (result: never) => void
  reject: (error: unknown) => void
}

/** Statements are pipelined only on a connection whose last answer was that quick and that recent. */
const quickMs = 5
const lifetimeMs = 30 * 60 * 1000
const readOnlyLifetimeMs = 500

/** A connection with its jobs, and how it is doing. */
export class PooledConnection {
  /** Jobs without an answer, oldest first. */
  readonly sent: Job[] = []
  /** When it is replaced, to look up names again and free the server's memory for it. */
  readonly #closeAt: number
  /** When the last answer came, or a job was sent while idle; and how long that answer took. */
  #lastAnswerAt = performance.now()
  #lastLatencyMs = Number.POSITIVE_INFINITY

  constructor(private readonly connection: PoolConnection) {
    const lifetime = connection.isReadOnly ? readOnlyLifetimeMs : lifetimeMs
    this.#closeAt = this.#lastAnswerAt + lifetime * (1 + Math.random())
  }

  get isLost() {
    return this.connection.lost
  }

  get isIdle() {
    return this.sent.length === 0
  }

  /** Whether its time is over. */
  isOld(now: number): boolean {
    return this.#closeAt <= now
  }

  /** Whether a job may be sent behind others: one prepared statement behind a few, while they are quick. */
  mayFollow({ kind }: Job, now: number): boolean {
    const areStatements = kind === 'prepared' && this.sent[0]!.kind === 'prepared'
    const isQuick = Math.max(this.#lastLatencyMs, now - this.#lastAnswerAt) < quickMs
    return areStatements && isQuick && this.sent.length < this.connection.depthMax
  }

  isSilentFor(ms: number, now: number): boolean {
    return !this.isIdle && this.#lastAnswerAt + ms <= now
  }

  /** Sends a job; `answered` is called when its caller has been answered. */
  send(job: Job, now: number, answered: (job: Job, now: number) => void) {
    if (this.isIdle) this.#lastAnswerAt = now
    this.sent.push(job)
    job.pooled = this
    const settled = () => {
      const now = performance.now()
      this.sent.shift()
      this.#lastLatencyMs = now - this.#lastAnswerAt
      this.#lastAnswerAt = now
      answered(job, now)
    }
    job.run(job.kind === 'transaction' ? this.#forTransaction() : this.connection).then(
      result => {
        job.resolve(result as never)
        settled()
      },
      error => {
        job.reject(job.kind === 'transaction' ? error : this.connection.failure(error))
        settled()
      },
    )
  }

  /** For a transaction, which is not slow as long as its statements are answered. */
  #forTransaction(): JobConnection {
    const { connection } = this
    return {
      run: (...statement) =>
        connection.run(...statement).finally(() => {
          this.#lastAnswerAt = performance.now()
        }),
      failure: error => connection.failure(error),
      destroy: () => connection.destroy(),
    }
  }

  /** Closes it within a second, with jobs at once. */
  async close() {
    if (this.isIdle) await this.connection.end()
    else this.connection.destroy()
  }

  /** Closes it at once; jobs without an answer are rejected. */
  destroy() {
    this.connection.destroy()
  }
}
