import { findAppError } from '../lib/errors.ts'
import { errorFields, type Log } from '../telemetry/log.ts'

/** Work that the service does by itself now and then. */
export interface Job {
  name: string
  /** Seconds between two runs, give or take a tenth: replicas that start together do not work together. */
  everySeconds: number
  run(): Promise<unknown>
}

/**
 * Runs each job now and then until it is told to stop, which waits for what is under way. A job that fails is reported
 * and runs again at its next turn; while the database is away nothing is reported.
 */
export function schedule(jobs: readonly Job[], log: Log): { stop(): Promise<void> } {
  const running = new Set<Promise<void>>()
  const timers = new Map<Job, Timer>()

  function plan(job: Job) {
    const seconds = job.everySeconds * (0.9 + 0.2 * Math.random())
    timers.set(job, setTimeout(start, seconds * 1000, job).unref())
  }

  function start(job: Job) {
    const run = attempt(job).finally(() => {
      running.delete(run)
      if (timers.has(job)) plan(job)
    })
    running.add(run)
  }

  async function attempt({ name, run }: Job) {
    try {
      await run()
    } catch (error) {
      const isAway = findAppError(error)?.code === 'unavailable'
      if (!isAway) log.error('job failed', { job: name, ...errorFields(error) })
    }
  }

  for (const job of jobs) plan(job)
  return {
    async stop() {
      for (const timer of timers.values()) clearTimeout(timer)
      timers.clear()
      await Promise.all(running)
    },
  }
}
