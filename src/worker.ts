import type { Env } from './config.ts'
import type { Counts } from './metrics.ts'

/** What the supervisor says to a worker, over the channel that Bun opens between a process and its child. */
export type Order =
  | ({ kind: 'start' } & Start)
  | { kind: 'ping' | 'count' }
  | { kind: 'metrics'; id: number; text: string }

/** What a worker says to the supervisor. */
export type Report =
  | { kind: 'listening' | 'migrated' | 'pong' }
  | { kind: 'counts'; counts: Counts }
  | { kind: 'metrics'; id: number }

/** How a worker begins. */
export interface Start {
  /** From 1 to WORKERS; whoever takes the place of a worker has its number. */
  worker: number
  /** Whether people read the log at a terminal. */
  pretty: boolean
  /** The settings as the supervisor read them, secrets included: a worker that comes later has the same ones. */
  env: Env
}

export type Supervisor = Awaited<ReturnType<typeof meetSupervisor>>

/** A worker's end of the channel; resolves when the supervisor has said how to begin. */
export async function meetSupervisor() {
  const started = Promise.withResolvers<Start>()
  const awaited = new Map<number, (text: string) => void>()
  let lastId = 0
  let count: (() => Promise<Counts>) | undefined
  let end: () => void = () => process.exit(1)

  const report = (report: Report) => void process.send!(report)
  process.on('disconnect', () => end())
  process.on('message', async (order: Order) => {
    if (order.kind === 'start') started.resolve(order)
    else if (order.kind === 'ping') report({ kind: 'pong' })
    else if (order.kind === 'metrics') {
      awaited.get(order.id)?.(order.text)
      awaited.delete(order.id)
    } else if (count) report({ kind: 'counts', counts: await count() })
  })

  return {
    ...(await started.promise),
    report,
    /** Says who counts here, when somebody asks. */
    onCount(counter: () => Promise<Counts>) {
      count = counter
    },
    /** The metrics of all workers together. */
    metrics(): Promise<string> {
      const { promise, resolve } = Promise.withResolvers<string>()
      awaited.set(++lastId, resolve)
      report({ kind: 'metrics', id: lastId })
      return promise
    },
    /** What to do when the supervisor is gone: without it nobody would ever end us. */
    onGone(handler: () => void) {
      end = handler
    },
  }
}
