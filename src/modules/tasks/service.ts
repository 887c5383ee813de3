import { and, type SQL } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { writeInTurn } from '../../db/versions.ts'
import { AppError } from '../../lib/errors.ts'
import { createIdempotency } from '../../lib/idempotency.ts'
import type { UserId } from '../../lib/user-id.ts'
import { isUuid } from '../../lib/uuid.ts'
import type { Log } from '../../telemetry/log.ts'
import { createBatch } from './batch.ts'
import { createChanges } from './changes.ts'
import { createCursors } from './cursor.ts'
import { createErasure } from './erasure.ts'
import { eraseTasks, restoreTask, trashTasks } from './families.ts'
import { createPages } from './list.ts'
import type { TaskCreate, TaskUpdate } from './model.ts'
import { checkVersion, findPrior, type IfMatch, own, type Serialized, throwMissing } from './owned.ts'
import { throwMisplaced } from './placement.ts'
import { requestText, serialized, toColumns, toNewColumns } from './rows.ts'
import { createUpdates, insertTask, insertTaskOnce, readTask, updateTask } from './statements.ts'
import { createStats } from './stats.ts'
import { isLive, isTrashed, tasks } from './table.ts'

export type TaskService = ReturnType<typeof createTaskService>

interface Parts {
  db: Db
  log: Pick<Log, 'error'>
  /** Signs the cursors, and makes ids of idempotency keys. */
  secretKey: string
}

/**
 * What a user can do with tasks; each part that is more than a few lines has a file of its own. One statement creates or
 * updates a task. If it has written nothing, and for all other changes, the service locks the user's versions, looks, and
 * writes (`writeInTurn`).
 */
export function createTaskService({ db, log, secretKey }: Parts) {
  const cursors = createCursors(secretKey)
  const identify = createIdempotency(secretKey, 'idempotency')
  const readOne = readTask(db)
  const insert = insertTask(db)
  const insertOnce = insertTaskOnce(db)
  const updateOf = createUpdates(db)

  async function read(userId: UserId, taskId: string): Promise<Serialized> {
    if (!isUuid(taskId)) throw new AppError('task_not_found')
    const [task] = await readOne.execute({ id: taskId, user: userId })
    return task ?? throwMissing(db, 'task', userId, taskId)
  }

  return {
    ...createPages(db, cursors),
    ...createChanges(db, cursors),
    ...createErasure(db, log),
    batch: createBatch(db),
    stats: createStats(db),

    /** One task. Throws `task_not_found`, or `not_authorized` when it is another user's. */
    read,

    /**
     * Creates a task. With an id or a key that was sent before, it creates none and returns the first task, as it is now.
     * Throws `invalid_token` when the account was deleted since the token was checked, `id_used` or `idempotency_key_used`
     * when the first task is in the trash or was deleted permanently, `idempotency_key_reused` when the key came with
     * another request.
     */
    async create(userId: UserId, input: TaskCreate, key?: string): Promise<Serialized & { id: string }> {
      const creation = identify(userId, { id: input.id, key, request: () => requestText(input) })
      const { id, mayExist, requestHash } = creation
      const values = { id, user: userId, request_hash: requestHash, ...toNewColumns(input) }
      const [created] = await (mayExist ? insertOnce : insert).execute(values).catch(throwMisplaced)
      if (created) return { id, ...created }
      // It was sent before, the user made another change at the same time, the account is gone, or its rows are moving to
      // another server of a cluster.
      const task = await writeInTurn(db, userId, async tx => {
        const prior = mayExist && (await findPrior(tx, 'task', userId, creation))
        if (prior) return prior
        const [created] = await insertTask(tx).execute(values)
        return created!
      }).catch(throwMisplaced)
      return { id, ...task }
    },

    /** Changes what `input` names and nothing else. Throws as `read` does, and `precondition_failed`. */
    async update(userId: UserId, taskId: string, input: TaskUpdate, ifMatch: IfMatch): Promise<Serialized> {
      if (!isUuid(taskId)) throw new AppError('task_not_found')
      const patch = toColumns(input)
      const columns = Object.keys(patch)
      const values = { id: taskId, user: userId, ifMatch, ...patch }
      const [updated] = await updateOf(columns).execute(values).catch(throwMisplaced)
      if (updated) return updated
      // There is no such task, it has another version, or nothing differs; or another writer was first.
      return writeInTurn(db, userId, async tx => {
        const found = await findTask(tx, userId, taskId, isLive, ifMatch)
        if (!found) return throwMissing(tx, 'task', userId, taskId)
        const [updated = found] = await updateTask(tx, columns).execute(values)
        return updated
      }).catch(throwMisplaced)
    },

    /** Moves a task to the trash or, with `permanent`, deletes it. Throws as `update` does. */
    async remove(userId: UserId, taskId: string, permanent: boolean, ifMatch: IfMatch): Promise<void> {
      if (!isUuid(taskId)) throw new AppError('task_not_found')
      await writeInTurn(db, userId, async (tx, versions) => {
        const found = await findTask(tx, userId, taskId, permanent ? undefined : isLive, ifMatch)
        if (!found) return throwMissing(tx, 'task', userId, taskId)
        const remove = permanent ? eraseTasks : trashTasks
        await remove(tx, versions, userId, [taskId])
      })
    },

    /** Restores a task from the trash; a task in the list stays unchanged. Throws as `update` does. */
    async restore(userId: UserId, taskId: string, ifMatch: IfMatch): Promise<Serialized> {
      if (!isUuid(taskId)) throw new AppError('task_not_found')
      await writeInTurn(db, userId, async (tx, versions) => {
        const found = await findTask(tx, userId, taskId, isTrashed, ifMatch)
        if (found) await restoreTask(tx, versions, userId, taskId)
      }).catch(throwMisplaced)
      return read(userId, taskId)
    },
  }
}

/** The task before a change, if it meets the condition. Throws `precondition_failed`. */
async function findTask(
  tx: Db,
  userId: UserId,
  taskId: string,
  which: SQL | undefined,
  ifMatch: IfMatch,
): Promise<Serialized | undefined> {
  const [task] = await tx
    .select(serialized)
    .from(tasks)
    .where(and(own(tasks, userId, taskId), which))
  if (task) checkVersion('task', task, ifMatch)
  return task
}
