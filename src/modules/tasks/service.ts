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
import { createPages } from './list.ts'
import { findOwn, type IfMatch, type Serialized, throwMissing } from './owned.ts'
import { throwMisplaced } from './placement.ts'
import { readTask } from './statements.ts'
import { createStats } from './stats.ts'
import { restoreTask } from './sub-tasks.ts'
import { createWrites } from './writes.ts'

export type TaskService = ReturnType<typeof createTaskService>

interface Parts {
  db: Db
  log: Pick<Log, 'error'>
  /** Signs the cursors, and makes ids of idempotency keys. */
  secretKey: string
}

/** What a user can do with tasks; each part that is more than a few lines has a file of its own. */
export function createTaskService({ db, log, secretKey }: Parts) {
  const cursors = createCursors(secretKey)
  const identify = createIdempotency(secretKey, 'idempotency')
  const writes = createWrites(db, identify)
  const readOne = readTask(db)

  async function read(userId: UserId, taskId: string): Promise<Serialized> {
    if (!isUuid(taskId)) throw new AppError('task_not_found')
    const [task] = await readOne.execute({ id: taskId, user: userId })
    return task ?? throwMissing(db, 'task', userId, taskId)
  }

  return {
    ...createPages(db, cursors),
    ...createChanges(db, cursors),
    ...createErasure(db, log),
    ...writes,
    batch: createBatch(db, identify, writes),
    stats: createStats(db),

    /** One task. Throws `task_not_found`, or `not_authorized` when it is another user's. */
    read,

    /** Restores a task from the trash; a task in the list stays unchanged. Throws as `update` does. */
    async restore(userId: UserId, taskId: string, ifMatch: IfMatch): Promise<Serialized> {
      if (!isUuid(taskId)) throw new AppError('task_not_found')
      return writeInTurn(db, userId, async tx => {
        await findOwn(tx, 'task', userId, taskId, ifMatch)
        await restoreTask(tx, userId, taskId)
        return findOwn(tx, 'task', userId, taskId, null)
      }).catch(error => throwMisplaced(error, ['path', 'id']))
    },
  }
}
