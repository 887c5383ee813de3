/** The user's changes on their way to the service. */
import type { Account } from './account.ts'
import type { Api } from './client.ts'
import { type Change, type Copy, report } from './copy.ts'
import { Problem } from './problem.ts'
import type { Task } from './tasks.ts'

/** What this browser has made of a version, by id and version: the user may have seen the one before. */
const made = new Map<string, number>()

export async function note({ copy }: Account, change: Change) {
  const db = await copy
  let { version } = change
  while (made.has(`${change.id} ${version}`)) version = made.get(`${change.id} ${version}`)!
  await db.add('outbox', { ...change, version })
  report()
}

/** The changes that wait, by their keys, in order. */
export async function waitingChanges({ copy }: Account): Promise<Map<number, Change>> {
  const { store } = (await copy).transaction('outbox')
  const [keys, changes] = await Promise.all([store.getAllKeys(), store.getAll()])
  return new Map(keys.map((key, i) => [key, changes[i]!]))
}

/**
 * Sends the changes in their order. What cannot be sent now stays for the next time. Each may be sent twice, when an
 * answer was lost: creates carry an id, the others a version. Returns the reasons of those refused for good.
 */
export async function push({ api, copy }: Account): Promise<string[]> {
  const db = await copy
  const refusals: string[] = []
  const undecided = new Set<string>()
  for (const key of await db.getAllKeys('outbox')) {
    const change = await db.get('outbox', key)
    if (!change) continue
    if (change.theirs) undecided.add(change.id)
    if (undecided.has(change.id)) continue

    const { data, error, response } = await send(api, change)
    if (response.ok) await settle(db, key, change, data)
    else if (response.status === 412 && error && 'current' in error) {
      const theirs = error.current as Task
      if (holds(theirs, change)) await settle(db, key, change, theirs)
      else {
        await db.put('outbox', { ...change, theirs }, key)
        report()
        undecided.add(change.id)
      }
    } else {
      const problem = new Problem(response, error!)
      if (problem.retryAfterSeconds || problem.status === 401) throw problem
      await settle(db, key, change)
      if (problem.status !== 404 || change.op !== 'delete') refusals.push(problem.message)
    }
  }
  return refusals
}

function send(api: Api, { op, id, version, fields }: Change) {
  const params = { path: { id }, header: { 'If-Match': `"${version}"` } }
  if (op === 'create') return api.POST('/api/v1/tasks', { body: { ...fields, id } })
  if (op === 'update') return api.PATCH('/api/v1/tasks/{id}', { params, body: fields })
  return api.DELETE('/api/v1/tasks/{id}', { params })
}

/** Takes a change out. Later changes of its task were made on top of it, and now have its version. */
async function settle(db: Copy, key: number, { id, version }: Change, task?: Task) {
  if (task && task.version !== version) made.set(`${id} ${version}`, task.version)
  const transaction = db.transaction(['tasks', 'outbox'], 'readwrite')
  const outbox = transaction.objectStore('outbox')
  outbox.delete(key)
  if (task) {
    transaction.objectStore('tasks').put(task)
    for await (const later of outbox) {
      if (later.value.id === id) later.update({ ...later.value, version: task.version })
    }
  }
  await transaction.done
  report()
}

/** Whether a task is as a change would make it: then the change was made, and its answer was lost. */
function holds(task: Task, { op, fields }: Change): boolean {
  const { due_at, ...others } = fields as Partial<Task>
  const isDue = due_at === undefined || Date.parse(due_at ?? '') === Date.parse(task.due_at ?? '')
  return (
    op === 'update' &&
    isDue &&
    Object.entries(others).every(([name, value]) => task[name as keyof Task] === value)
  )
}

/** Ends a conflict: the user's changes are made on top of the service's task, or given up. */
export async function decide({ copy }: Account, id: string, whose: 'mine' | 'theirs') {
  const transaction = (await copy).transaction('outbox', 'readwrite')
  for await (const entry of transaction.store) {
    const { theirs, ...change } = entry.value
    if (change.id !== id) continue
    if (whose === 'theirs') entry.delete()
    else if (theirs) entry.update({ ...change, version: theirs.version })
  }
  await transaction.done
  report()
}
