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
 * Runs each job periodically, those of one period one after the other: a database that sleeps when idle is woken once for
 * all of them. `stop` waits for the running job. A failure is logged, unless the database is away, and the job runs again at
 * its next turn.
 */
export function schedule(jobs: readonly Job[], log: Log): { stop(): Promise<void> } {
  /** The last runs, and the next, of each period. */
  const runs = new Map<number, Promise<void>>()
  const timers = new Map<number, Timer>()
  const periods = Map.groupBy(jobs, ({ everySeconds }) => everySeconds)

  function plan(period: number) {
    const seconds = period * (0.9 + 0.2 * Math.random())
    timers.set(
      period,
      setTimeout(() => runs.set(period, runAll(period)), seconds * 1000),
    )
  }

  async function runAll(period: number) {
    for (const job of periods.get(period)!) if (timers.has(period)) await run(job)
    if (timers.has(period)) plan(period)
  }

  async function run(job: Job) {
    try {
      await job.run()
    } catch (error) {
      if (!isOutage(error)) log.error('job failed', { job: job.name, ...errorFields(error) })
    }
  }

  for (const period of periods.keys()) plan(period)
  return {
    async stop() {
      for (const timer of timers.values()) clearTimeout(timer)
      timers.clear()
      await Promise.all(runs.values())
    },
  }
}
