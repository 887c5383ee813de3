import { isOutage } from '../db/pg-error.ts'
import { errorFields, type Log } from '../telemetry/log.ts'

/** Background work of the service. */
export interface Job {
  name: string
  /** Seconds between two runs, ± 10 %, so that replicas that start together do not run it together. */
  everySeconds: number
  run(): Promise<unknown>
}

/**
 * Runs each job periodically. `stop` waits for running jobs. A failure is logged, unless the database is away, and the job
 * runs again at its next turn.
 */
export function schedule(jobs: readonly Job[], log: Log): { stop(): Promise<void> } {
  /** The last run of each job. */
  const runs = new Map<Job, Promise<void>>()
  const timers = new Map<Job, Timer>()

  function plan(job: Job) {
    const seconds = job.everySeconds * (0.9 + 0.2 * Math.random())
    timers.set(
      job,
      setTimeout(() => runs.set(job, run(job)), seconds * 1000),
    )
  }

  async function run(job: Job) {
    try {
      await job.run()
    } catch (error) {
      if (!isOutage(error)) log.error('job failed', { job: job.name, ...errorFields(error) })
    }
    if (timers.has(job)) plan(job)
  }

  for (const job of jobs) plan(job)
  return {
    async stop() {
      for (const timer of timers.values()) clearTimeout(timer)
      timers.clear()
      await Promise.all(runs.values())
    },
  }
}
