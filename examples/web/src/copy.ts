/** What this browser keeps for times without a network: a copy of tasks and lists, and the changes that wait to be sent. */
import { type DBSchema, openDB } from 'idb'
import type { components } from './schema.d.ts'

type Schemas = components['schemas']
type Task = Schemas['Task']

export type Change = {
  id: string
  /** The task's version when the user changed it; if it has another one by then, the service refuses the change. */
  version: number
  /** The service's task after such a refusal: the user decides. */
  theirs?: Task
} & (
  | { op: 'create'; fields: Schemas['TaskCreate'] }
  | { op: 'update'; fields: Schemas['TaskUpdate'] }
  | { op: 'delete'; fields: Record<string, never> }
)

interface Schema extends DBSchema {
  tasks: { key: string; value: Task }
  lists: { key: string; value: Schemas['TaskList'] }
  /** In the order in which they were made. */
  outbox: { key: number; value: Change }
  about: { key: 'account' | 'cursor'; value: string }
}

export const copy = openDB<Schema>('todo', 1, {
  upgrade(db) {
    db.createObjectStore('tasks', { keyPath: 'id' })
    db.createObjectStore('lists', { keyPath: 'id' })
    db.createObjectStore('outbox', { autoIncrement: true })
    db.createObjectStore('about')
  },
})

const events = new EventTarget()

/** Calls a listener after every change of the copy. */
export function onCopy(listener: () => void) {
  events.addEventListener('change', listener)
  return () => events.removeEventListener('change', listener)
}

export const report = () => void events.dispatchEvent(new Event('change'))

/** Makes sure that the copy is this account's: another one's is thrown away. */
export async function claimCopy(account: string) {
  const db = await copy
  if ((await db.get('about', 'account')) === account) return
  await clearCopy()
  await db.put('about', account, 'account')
}

export async function clearCopy() {
  const transaction = (await copy).transaction(['tasks', 'lists', 'outbox', 'about'], 'readwrite')
  for (const name of transaction.objectStoreNames) transaction.objectStore(name).clear()
  await transaction.done
  report()
}
