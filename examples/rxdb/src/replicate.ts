import { EventSourceParserStream } from 'eventsource-parser/stream'
import type { Client } from 'openapi-fetch'
import { deepEqual, type RxCollection, type RxConflictHandler, type WithDeleted } from 'rxdb'
import { replicateRxCollection } from 'rxdb/plugins/replication'
import type { components, paths } from './schema.d.ts'

type Task = components['schemas']['Task']
export type TaskDoc = Pick<
  Task,
  'id' | 'version' | 'title' | 'description' | 'status' | 'priority' | 'due_at'
>
type State = WithDeleted<TaskDoc>

const toState = ({ id, version, title, description, status, priority, due_at }: Task): State => {
  return { id, version, title, description, status, priority, due_at, _deleted: false }
}
const toDeleted = ({ id }: { id: string }) => ({ id, _deleted: true }) as State

/** Both sides have changed a task: each field that has changed here wins, unless the task is gone there. */
export const conflictHandler: RxConflictHandler<TaskDoc> = {
  isEqual: deepEqual,
  async resolve({ realMasterState: theirs, newDocumentState: mine, assumedMasterState: base }) {
    if (theirs._deleted) return theirs
    const changes = Object.entries(mine).filter(([name, value]) => value !== base?.[name as keyof State])
    return { ...theirs, ...Object.fromEntries(changes), version: theirs.version }
  },
}

export function replicateTasks(collection: RxCollection<TaskDoc>, api: Client<paths>, retryTime = 5000) {
  async function pull(since?: string): Promise<{ documents: State[]; checkpoint: { since: string } }> {
    const params = { query: { since, limit: 200 } }
    const { data, error, response } = await api.GET('/api/v1/tasks/changes', { params })
    if (since && response.status === 410) {
      // Deletions since the cursor may be forgotten: what does not come again is gone.
      const [here, first] = [await collection.find().exec(), await pull()]
      return { ...first, documents: [...here.map(toDeleted), ...first.documents] }
    }
    if (!data) throw error
    const documents = [...data.tasks.map(toState), ...data.deleted.map(id => toDeleted({ id }))]
    return { documents, checkpoint: { since: data.cursor } }
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
    if (error) throw error
    // A create that was sent before returns the task as it is now.
    const isSame = !data || base || deepEqual({ ...toState(data), version }, { ...mine, version, _deleted })
    return isSame ? [] : [toState(data)]
  }

  const replication = replicateRxCollection<TaskDoc, { since: string }>({
    ...{ collection, replicationIdentifier: 'todo-api', retryTime },
    pull: { handler: at => pull(at?.since), batchSize: 200 },
    push: { handler: ([row]) => push(row!.newDocumentState, row!.assumedMasterState), batchSize: 1 },
  })

  /** Pulls when a stream begins, and at each change. */
  async function listen({ signal }: AbortController) {
    while (!signal.aborted) {
      const open = api.GET('/api/v1/tasks/events', { parseAs: 'stream', signal })
      const { data } = await open.catch(() => ({ data: null }))
      const events = data?.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream())
      await events?.pipeTo(new WritableStream({ write: () => replication.reSync() })).catch(() => {})
      await collection.promiseWait(retryTime)
    }
  }
  const listening = new AbortController()
  replication.onCancel.push(() => listening.abort())
  listen(listening)
  return replication
}
