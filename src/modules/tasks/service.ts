import type { Db } from '../../db/drizzle.ts'
import { brokenConstraint } from '../../db/pg-error.ts'
import { deriveKey } from '../../lib/derive-key.ts'
import { AppError } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import { isUuid, uuidOf } from '../../lib/uuid.ts'
import type { Log } from '../../telemetry/log.ts'
import { createBatch } from './batch.ts'
import { createChanges } from './changes.ts'
import { createCursors } from './cursor.ts'
import { createErasure } from './erasure.ts'
import { createLists } from './list.ts'
import type { TaskCreate, TaskUpdate } from './model.ts'
import { type SerializedTask, toColumns, toNewColumns } from './rows.ts'
import { type Change, createStatements, type Target, throwMissing } from './statements.ts'
import { createStats } from './stats.ts'
import { createTrash } from './trash.ts'

export type TaskService = ReturnType<typeof createTaskService>

interface Parts {
  db: Db
  log: Pick<Log, 'error'>
  /** Signs the cursors, and makes ids of idempotency keys. */
  secretKey: string
}

/** The versions of a task that a change accepts, as text; null for any. */
type Versions = string[] | null

/** How often a change is tried while other writers change the same task. */
const triesMax = 3

export function createTaskService({ db, log, secretKey }: Parts) {
  const cursors = createCursors(secretKey)
  const idempotencyKey = deriveKey(secretKey, 'idempotency')
  const statements = createStatements(db)
  const erasure = createErasure(db, log)

  /**
   * Writes, and looks why only when nothing was written. Returns the task, or `undefined` when there is none to change.
   * If another writer has made the change possible since the write, it is tried again.
   */
  async function applyChange<Values extends Target>(change: Change, values: Values) {
    if (!isUuid(values.id)) throw new AppError('task_not_found')
    for (let attempt = 1; attempt <= triesMax; attempt++) {
      const [written] = await change.write(values)
      if (written) return written
      const [task] = await change.look(values)
      if (!task) return undefined
      if (values.ifMatch && !values.ifMatch.includes(`${task.version}`))
        throw new AppError('precondition_failed')
      if (!task.differs) return task
    }
    throw new AppError('unavailable')
  }

  async function read(userId: UserId, taskId: string): Promise<SerializedTask> {
    if (!isUuid(taskId)) throw new AppError('task_not_found')
    const [task] = await statements.read.execute({ id: taskId, user: userId })
    if (!task) return throwMissing(db, userId, taskId)
    return task
  }

  /** Creates a task with that id, or returns the one that exists. Of two at once, one violates the primary key. */
  async function createOnce(values: Target): Promise<SerializedTask> {
    try {
      const [made] = await statements.insertOnce.execute({ ...values })
      if (made) return made
    } catch (error) {
      if (brokenConstraint(error) !== 'tasks_pkey') throw error
    }
    const [prior] = await statements.prior.execute({ ...values })
    if (prior) return prior
    const [tombstone] = await statements.tombstone.execute({ ...values })
    throw new AppError(tombstone ? 'idempotency_key_used' : 'invalid_token')
  }

  return {
    list: createLists(db, cursors),
    ...createChanges(db, cursors),
    batch: createBatch(db),
    stats: createStats(db),
    trash: createTrash(db, cursors),
    emptyTrash: erasure.emptyTrash,
    purge: erasure.purge,

    /** One task. Throws `task_not_found`, or `not_authorized` when it is another user's. */
    read,

    /**
     * Creates a task; with a key that was used before, returns that task instead. Throws `invalid_token` when the account
     * was deleted since the token was checked, `idempotency_key_used` when that task was deleted permanently.
     */
    async create(userId: UserId, input: TaskCreate, key?: string): Promise<SerializedTask & { id: string }> {
      const id = key === undefined ? Bun.randomUUIDv7() : uuidOf(`${userId}\0${key}`, idempotencyKey)
      const values = { id, user: userId, ...toNewColumns(input) }
      if (key !== undefined) return { id, ...(await createOnce(values)) }
      const [task] = await statements.insert.execute(values)
      if (!task) throw new AppError('invalid_token')
      return { id, ...task }
    },

    /** Changes what `input` names and nothing else. Throws as `read` does, and `precondition_failed`. */
    async update(userId: UserId, taskId: string, input: TaskUpdate, ifMatch: Versions) {
      const patch = toColumns(input)
      const change = statements.update(Object.keys(patch))
      const values = { id: taskId, user: userId, ifMatch, ...patch }
      const task = await applyChange(change, values)
      if (!task) return throwMissing(db, userId, taskId)
      return task
    },

    /** Moves a task to the trash or, with `permanent`, deletes it. Throws as `update` does. */
    async remove(userId: UserId, taskId: string, permanent: boolean, ifMatch: Versions): Promise<void> {
      const change = permanent ? erasure.task : statements.trash
      const done = await applyChange(change, { id: taskId, user: userId, ifMatch })
      if (!done) await throwMissing(db, userId, taskId)
    },

    /** Restores a task from the trash; a task in the list stays unchanged. Throws as `update` does. */
    async restore(userId: UserId, taskId: string, ifMatch: Versions): Promise<SerializedTask> {
      const restored = await applyChange(statements.restore, { id: taskId, user: userId, ifMatch })
      return restored ?? read(userId, taskId)
    },
  }
}
