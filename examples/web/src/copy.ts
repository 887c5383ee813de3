/** What this browser keeps for times without a network: a copy of tasks and lists, and the changes that wait to be sent. */
import { type DBSchema, deleteDB, type IDBPDatabase, openDB } from 'idb'
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
  about: { key: 'cursor'; value: string }
}

export type Copy = IDBPDatabase<Schema>

const prefix = 'todo of '
const nameOf = (userId: string) => prefix + userId

/** Opens the copy of a user; those of others are deleted. */
export async function openCopy(userId: string): Promise<Copy> {
  for (const { name } of await indexedDB.databases()) {
    if (name?.startsWith(prefix) && name !== nameOf(userId)) deleteDB(name)
  }
  return openDB<Schema>(nameOf(userId), 1, {
    upgrade(db) {
      db.createObjectStore('tasks', { keyPath: 'id' })
      db.createObjectStore('lists', { keyPath: 'id' })
      db.createObjectStore('outbox', { autoIncrement: true })
      db.createObjectStore('about')
    },
    /** It is deleted, here or in another tab, which waits until it is closed. */
    blocking: (_version, _blocked, { target }) => (target as IDBDatabase).close(),
  })
}

export const deleteCopy = (userId: string) => deleteDB(nameOf(userId))

const channel = 'copy'
const reporter = new BroadcastChannel(channel)

/** Calls a listener after every change of the copy, also by another tab. */
export function onCopy(listener: () => void) {
  const receiver = new BroadcastChannel(channel)
  receiver.onmessage = listener
  return () => receiver.close()
}

export const report = () => reporter.postMessage(null)
