import type { Db } from '../../db/drizzle.ts'
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
import { requestText, type SerializedTask, toColumns, toNewColumns } from './rows.ts'
import { type Change, createStatements, lockVersions, type Target, throwMissing } from './statements.ts'
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
        throw new AppError('precondition_failed', { current: JSON.parse(task.json) })
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

  /**
   * Creates a task whose id was said by the client, or follows from its key; returns the one that exists. `requestHash`
   * is null for an id of the client's own.
   */
  async function createOnce(user: UserId, id: string, input: TaskCreate, requestHash: string | null) {
    const values = { id, user, request_hash: requestHash, ...toNewColumns(input) }
    const attempt = async ({ insertOnce, prior, tombstone }: typeof statements) => {
      const [made] = await insertOnce.execute(values)
      if (made) return made
      const [found] = await prior.execute(values)
      const isGone = found ? found.isTrashed : (await tombstone.execute(values)).length > 0
      if (isGone) throw new AppError(requestHash === null ? 'id_used' : 'idempotency_key_used')
      if (found && !found.isRepeat) throw keyReused()
      return found
    }
    const task =
      (await attempt(statements)) ??
      // The user made another change at the same time. With the lock held, there is none.
      (await db.transaction(async tx => {
        await lockVersions(tx, user)
        return attempt(createStatements(tx))
      }))
    if (!task) throw new AppError('invalid_token')
    return task
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
     * Creates a task. With an id or a key that was sent before, it creates none and returns the first task, as it is now.
     * Throws `invalid_token` when the account was deleted since the token was checked, `id_used` or `idempotency_key_used`
     * when the first task is in the trash or was deleted permanently, `idempotency_key_reused` when the key came with
     * another request.
     */
    async create(userId: UserId, input: TaskCreate, key?: string): Promise<SerializedTask & { id: string }> {
      if (key !== undefined) {
        if (input.id !== undefined) throw notCombinable()
        const id = uuidOf(`${userId}\0${key}`, idempotencyKey)
        const hash = new Bun.CryptoHasher('sha256', idempotencyKey)
          .update(requestText(input))
          .digest('base64url')
        return { id, ...(await createOnce(userId, id, input, hash)) }
      }
      if (input.id !== undefined) {
        const id = input.id.toLowerCase()
        return { id, ...(await createOnce(userId, id, input, null)) }
      }
      const id = Bun.randomUUIDv7()
      const [task] = await statements.insert.execute({ id, user: userId, ...toNewColumns(input) })
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

const keyReused = () => {
  const problem = { loc: ['header', 'idempotency-key'], msg: 'Sent before, with another body' }
  return new AppError('idempotency_key_reused', {
    detail: [{ ...problem, type: 'idempotency_key_reused' }],
  })
}

const notCombinable = () => {
  const problem = { loc: ['body', 'id'], msg: 'Use either id or Idempotency-Key', type: 'not_combinable' }
  return new AppError('validation_failed', { detail: [problem] })
}
