import cluster from 'node:cluster'
import { EventEmitter, once } from 'node:events'
import type { Config } from '../../config/config.ts'
import { AppError } from '../../lib/errors.ts'

/** `worker` is from 1 to WORKERS. */
export type SupervisorMessage =
  | { kind: 'start'; worker: number; config: Config }
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
  const [{ worker, config }] = (await once(messages, 'start')) as [{ worker: number; config: Config }]
  // Otherwise node:cluster ends a worker at once when its supervisor is gone, with requests in flight.
  cluster.worker!.exitedAfterDisconnect = true

  /** The metrics of all workers, for the route of one worker. */
  async function metrics(): Promise<string> {
    send('metrics')
    const [{ text }] = await once(messages, 'metrics')
    if (text === undefined) throw new AppError('unavailable')
    return text
  }

  return { worker, config, send, metrics }
}
