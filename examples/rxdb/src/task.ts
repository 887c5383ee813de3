import type { Client } from 'openapi-fetch'
import { deepEqual, type RxConflictHandler, type RxJsonSchema, type WithDeleted } from 'rxdb'
import type { components, paths } from './schema.d.ts'

export type Api = Client<paths>
export type Task = components['schemas']['Task']
export type TaskDoc = Pick<
  Task,
  'id' | 'version' | 'title' | 'description' | 'status' | 'priority' | 'due_at'
>
export type State = WithDeleted<TaskDoc>

export const toState = ({ id, version, title, description, status, priority, due_at }: Task): State => {
  return { id, version, title, description, status, priority, due_at, _deleted: false }
}
/** The service tells no more of a deleted task than its id. */
export const toDeleted = ({ id }: Pick<Task, 'id'>) => ({ id, _deleted: true }) as State

/** Sent again it would be refused again, and hold up all others; but for want of a token (401) or of patience (408, 429). */
export const isRefused = ({ status }: Response) =>
  status >= 400 && status < 500 && ![401, 408, 429].includes(status)

/**
 * Both sides have changed a task: each field that has changed here wins, unless the task is gone there. With the version that
 * was assumed it has not changed there: then the change was refused.
 */
export const conflictHandler: RxConflictHandler<TaskDoc> = {
  isEqual: deepEqual,
  async resolve({ realMasterState: theirs, newDocumentState: mine, assumedMasterState: base }) {
    if (theirs._deleted || theirs.version === base?.version) return theirs
    const changes = Object.entries(mine).filter(([name, value]) => value !== base?.[name as keyof State])
    return { ...theirs, ...Object.fromEntries(changes), version: theirs.version }
  },
}

export const taskSchema: RxJsonSchema<TaskDoc> = {
  version: 0,
  primaryKey: 'id',
  type: 'object',
  properties: {
    id: { type: 'string', maxLength: 36 },
    /** The service's; 0 for a task that it does not have yet. */
    version: { type: 'integer' },
    title: { type: 'string' },
    description: { type: ['string', 'null'] },
    status: { type: 'string' },
    priority: { type: 'integer' },
    due_at: { type: ['string', 'null'] },
  },
  required: ['id'],
}
