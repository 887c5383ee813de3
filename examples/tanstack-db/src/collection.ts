import type { CollectionConfig, PendingMutation, SyncConfig } from '@tanstack/db'
import type { Client } from 'openapi-fetch'
import { listen } from './live.ts'
import type { components, paths } from './schema.d.ts'

export type Task = components['schemas']['Task']
type Sync = SyncConfig<Task, string>['sync']

/** For `createCollection`: a change is shown at once, and sent as soon as the service can be reached. */
export function taskCollectionOptions(api: Client<paths>, retryMs = 5000): CollectionConfig<Task, string> {
  let collection: Parameters<Sync>[0]
  let since: string | undefined
  let queue: Promise<unknown> = Promise.resolve()
  const pause = () => new Promise(resolve => setTimeout(resolve, retryMs))

  /** One after the other, so that no older state comes after a newer one. */
  function inTurn(run: () => Promise<unknown>) {
    queue = queue.catch(() => {}).then(run)
    return queue
  }

  async function pull(): Promise<void> {
    const params = { query: { since, limit: 200 } }
    const { data, error, response } = await api.GET('/api/v1/tasks/changes', { params })
    if (!data && !(since && [410, 422].includes(response.status))) throw error
    collection.begin()
    // From the beginning: what does not come again is gone.
    if (!since) collection.truncate()
    for (const value of data?.tasks ?? []) collection.write({ type: 'update', value })
    for (const key of data?.deleted ?? []) collection.write({ type: 'delete', key })
    collection.commit()
    since = data?.cursor
    if (!data || data.has_more) await pull()
  }

  function send({ type, modified, changes, key }: PendingMutation<Task>, version: number) {
    const params = { path: { id: key }, header: { 'If-Match': `"${version}"` } }
    if (type === 'insert') return api.POST('/api/v1/tasks', { body: modified })
    if (type === 'update') return api.PATCH('/api/v1/tasks/{id}', { params, body: changes })
    return api.DELETE('/api/v1/tasks/{id}', { params })
  }

  /** Sends a change until it is made; if the task has changed elsewhere, on top of that. */
  async function deliver(
    mutation: PendingMutation<Task>,
    version = mutation.modified.version,
  ): Promise<void> {
    const { error, response } = await send(mutation, version).catch(() => ({ error: null, response: null }))
    if (response?.status === 412) return deliver(mutation, (error as { current: Task }).current.version)
    if (response?.ok || response?.status === 404 || response?.status === 409) return
    if (response && response.status < 500 && ![401, 429].includes(response.status)) throw error
    return pause().then(() => deliver(mutation, version))
  }
  const pullUntilDone = (): Promise<void> => pull().catch(() => pause().then(pullUntilDone))
  /** Ends when the collection has the change, too: then the optimistic one is dropped. */
  const change = ({ transaction: { mutations } }: { transaction: { mutations: PendingMutation<Task>[] } }) =>
    inTurn(() => Promise.all(mutations.map(mutation => deliver(mutation))).then(pullUntilDone))

  const sync: Sync = parts => {
    const stop = new AbortController()
    collection = parts
    listen(api, () => void inTurn(pullUntilDone).then(collection.markReady), stop.signal, retryMs)
    return () => stop.abort()
  }
  const handlers = { onInsert: change, onUpdate: change, onDelete: change }
  return { getKey: task => task.id, sync: { sync, rowUpdateMode: 'full' }, ...handlers }
}
