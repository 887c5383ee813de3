import cluster from 'node:cluster'
import { EventEmitter, once } from 'node:events'
import type { Env } from '../../config/config.ts'
import { AppError } from '../../lib/errors.ts'

/** `worker` is from 1 to WORKERS; `env` has the settings as the supervisor read them, secrets included. */
export type SupervisorMessage =
  | { kind: 'start'; worker: number; env: Env }
  | { kind: 'ping' }
  | { kind: 'metrics'; text: string | undefined }
export type WorkerMessage = { kind: 'hello' | 'migrated' | 'pong' | 'metrics' }

export type Supervisor = Awaited<ReturnType<typeof connectToSupervisor>>

/** The worker's end of the channel; resolves when the supervisor has sent the settings. */
export async function connectToSupervisor() {
  const messages = new EventEmitter()
  const send = (kind: WorkerMessage['kind']) => void (process.connected && process.send?.({ kind }))
  process.on('message', (message: SupervisorMessage) => messages.emit(message.kind, message))
  messages.on('ping', () => send('pong'))
  // A message without a listener is lost, so the worker sends the first one.
  send('hello')
  const [{ worker, env }] = (await once(messages, 'start')) as [{ worker: number; env: Env }]
  // Otherwise node:cluster ends a worker at once when its supervisor is gone, with requests in flight.
  cluster.worker!.exitedAfterDisconnect = true
  return {
    worker,
    env,
    send,
    /** The metrics of all workers, for the route of one worker. */
    async metrics(): Promise<string> {
      send('metrics')
      const [{ text }] = await once(messages, 'metrics')
      if (text === undefined) throw new AppError('unavailable')
      return text
    },
  }
}
