import { deepEqual, type RxCollection } from 'rxdb'
import { replicateRxCollection } from 'rxdb/plugins/replication'
import { Observable } from 'rxjs'
import { listen } from './live.ts'
import { type Api, isRefused, type State, type Task, type TaskDoc, toDeleted, toState } from './task.ts'

export function replicateTasks(collection: RxCollection<TaskDoc>, api: Api, retryTime = 5000) {
  async function pull(since?: string): Promise<{ documents: State[]; checkpoint: { cursor: string } }> {
    const params = { query: { since: since || undefined, limit: 200 } }
    const { data, error, response } = await api.GET('/api/v1/tasks/changes', { params })
    if (since && [410, 422].includes(response.status)) {
      // The cursor is too old, or another service's. What does not come again is gone.
      const [here, first] = [await collection.find().exec(), await pull()]
      return { ...first, documents: [...here.map(toDeleted), ...first.documents] }
    }
    if (!data) throw error
    const documents = [...data.tasks.map(toState), ...data.deleted.map(id => toDeleted({ id }))]
    // An answer may hold nothing but lists; RxDB ends when there is no task.
    if (documents.length === 0 && data.has_more) return pull(data.cursor)
    return { documents, checkpoint: { cursor: data.cursor } }
  }
  /** Sends a task. Returns the service's if that is another one than RxDB assumes, which is a conflict. */
  async function push({ _deleted, version, ...mine }: State, base?: State): Promise<State[]> {
    const params = { path: { id: mine.id }, header: { 'If-Match': base && `"${base.version}"` } }
    const { data, error, response } = await (_deleted
      ? api.DELETE('/api/v1/tasks/{id}', { params })
      : base
        ? api.PATCH('/api/v1/tasks/{id}', { params, body: mine })
        : api.POST('/api/v1/tasks', { body: mine }))
    if (response.status === 404 || response.status === 409) return _deleted ? [] : [toDeleted(mine)]
    if (response.status === 412) return [toState((error as { current: Task }).current)]
    if (isRefused(response)) {
      replication.subjects.error.next(error as never)
      return [base ?? toDeleted(mine)]
    }
    if (error) throw error
    // A create that was sent before returns the task as it is now.
    const isSame = !data || base || deepEqual({ ...toState(data), version }, { ...mine, version, _deleted })
    return isSame ? [] : [toState(data)]
  }

  let cursor: string | undefined
  const pushes = { count: 0, began: '' }
  const replication = replicateRxCollection<TaskDoc, { cursor: string }>({
    ...{ collection, replicationIdentifier: 'todo-api', retryTime },
    // With several tabs one replicates, and has the only stream: a browser has six connections over HTTP/1.1.
    toggleOnDocumentVisible: false,
    pull: {
      stream$: new Observable(subscriber => {
        const stop = new AbortController()
        listen(api, () => subscriber.next('RESYNC'), stop.signal, retryTime)
        return () => stop.abort()
      }),
      batchSize: 200,
      async handler(stored) {
        cursor ??= stored?.cursor
        const since = cursor
        const pulled = await pull(since)
        if (cursor === since) cursor = pulled.checkpoint.cursor
        return pulled
      },
    },
    push: {
      batchSize: 1,
      handler([row]) {
        if (pushes.count++ === 0) pushes.began = cursor ?? ''
        return push(row!.newDocumentState, row!.assumedMasterState).finally(() => void pullAgain())
      },
    },
  })
  /** RxDB ignores what it pulls of a task while a change of it is on its way. */
  async function pullAgain() {
    await replication.awaitInSync()
    if (--pushes.count > 0) return
    cursor = pushes.began
    replication.reSync()
  }
  return replication
}
