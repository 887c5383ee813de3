import type { Db } from '../../db/drizzle.ts'
import { AppError } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import { isUuid } from '../../lib/uuid.ts'
import type { Log } from '../../telemetry/log.ts'
import { createBatch } from './batch.ts'
import { createChanges } from './changes.ts'
import { createCursors } from './cursor.ts'
import { createErasure } from './erasure.ts'
import { createFamilyChanges } from './families.ts'
import { createInsertion } from './insertion.ts'
import { createPages } from './list.ts'
import type { TaskUpdate } from './model.ts'
import { throwMisplaced } from './placement.ts'
import { type SerializedTask, toColumns } from './rows.ts'
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

/** What a user can do with tasks; each part that is more than a few lines has a file of its own. */
export function createTaskService({ db, log, secretKey }: Parts) {
  const cursors = createCursors(secretKey)
  const statements = createStatements(db)
  const erasure = createErasure(db, log)
  const families = createFamilyChanges(db)

  async function read(userId: UserId, taskId: string): Promise<SerializedTask> {
    if (!isUuid(taskId)) throw new AppError('task_not_found')
    const [task] = await statements.read.execute({ id: taskId, user: userId })
    if (!task) return throwMissing(db, userId, taskId)
    return task
  }

  return {
    ...createPages(db, cursors),
    ...createChanges(db, cursors),
    create: createInsertion({ db, statements, secretKey }),
    batch: createBatch(db),
    stats: createStats(db),
    trash: createTrash(db, cursors),
    emptyTrash: erasure.emptyTrash,
    purge: erasure.purge,

    /** One task. Throws `task_not_found`, or `not_authorized` when it is another user's. */
    read,

    /** Changes what `input` names and nothing else. Throws as `read` does, and `precondition_failed`. */
    async update(userId: UserId, taskId: string, input: TaskUpdate, ifMatch: Versions) {
      const patch = toColumns(input)
      const change = statements.update(Object.keys(patch))
      const values = { id: taskId, user: userId, ifMatch, ...patch }
      const task = await applyChange(change, values).catch(throwMisplaced)
      if (!task) return throwMissing(db, userId, taskId)
      return task
    },

    /** Moves a task to the trash or, with `permanent`, deletes it. Throws as `update` does. */
    async remove(userId: UserId, taskId: string, permanent: boolean, ifMatch: Versions): Promise<void> {
      const change = permanent ? families.erase : families.trash
      const done = await applyChange(change, { id: taskId, user: userId, ifMatch })
      if (!done) await throwMissing(db, userId, taskId)
    },

    /** Restores a task from the trash; a task in the list stays unchanged. Throws as `update` does. */
    async restore(userId: UserId, taskId: string, ifMatch: Versions): Promise<SerializedTask> {
      await applyChange(families.restore, { id: taskId, user: userId, ifMatch }).catch(throwMisplaced)
      return read(userId, taskId)
    },
  }
}

/** How often a change is tried while other writers change the same task. */
const triesMax = 3

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
