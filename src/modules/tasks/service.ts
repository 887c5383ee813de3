import type { Db } from '../../db/client.ts'
import { brokenConstraint } from '../../db/constraint.ts'
import type { Driver } from '../../db/driver.ts'
import { AppError } from '../../errors.ts'
import { isUuid, uuidOf } from '../../uuid.ts'
import { createBatch } from './batch.ts'
import { createChanges } from './changes.ts'
import { createCursors } from './cursor.ts'
import { createLists } from './list.ts'
import type { TaskCreate, TaskUpdate } from './model.ts'
import { type ReadyTask, type TaskRow, toNewRow, toPatch, toReady } from './rows.ts'
import { createStatements, type Outcome } from './statements.ts'
import { createStats } from './stats.ts'
import { createTrash } from './trash.ts'

export type TaskService = ReturnType<typeof createTaskService>

interface Parts {
  db: Db
  driver: Driver
  /** Seals the cursors. */
  secretKey: string
}

/** The versions of a task that a change accepts, as text; null for any. */
type Versions = string[] | null

/** How often a create with an Idempotency-Key runs again when another one with the same key was faster. */
const triesMax = 3

export function createTaskService({ db, driver, secretKey }: Parts) {
  const cursors = createCursors(secretKey)
  const statements = createStatements(db, driver)
  const trash = createTrash(driver, cursors)

  /** Why a person cannot have a task: somebody else's is 403, none (or one in the trash) 404. */
  async function refuse(userId: string, taskId: string): Promise<never> {
    const [row] = await statements.owner({ id: taskId })
    throw new AppError(row && row[0] !== userId ? 'not_authorized' : 'task_not_found')
  }

  function wellFormed(taskId: string) {
    if (!isUuid(taskId)) throw new AppError('task_not_found')
  }

  /** The task that an operation has left, or the error that says why it did not. */
  async function afterwards(
    userId: string,
    taskId: string,
    row: [Outcome, ...TaskRow] | undefined,
  ): Promise<ReadyTask> {
    if (row?.[0] === 'moved') throw new AppError('precondition_failed')
    if (!row || row[0] === 'absent') return refuse(userId, taskId)
    return toReady(row.slice(1) as TaskRow)
  }

  async function createOnce(task: { user: string }, key: string): Promise<ReadyTask> {
    const values = { id: uuidOf(`todo-api: idempotency\0${task.user}\0${key}`), ...task }
    for (let attempt = 1; ; attempt++) {
      try {
        const [row] = await statements.insertOnce(values)
        if (!row) throw new AppError('invalid_token')
        if (row[0] === 'gone') throw new AppError('idempotency_key_used')
        return toReady(row.slice(1) as TaskRow)
      } catch (error) {
        if (brokenConstraint(error) !== 'tasks_pkey' || attempt === triesMax) throw error
      }
    }
  }

  async function read(userId: string, taskId: string): Promise<ReadyTask> {
    wellFormed(taskId)
    const [row] = await statements.read({ id: taskId, user: userId })
    return row ? toReady(row) : refuse(userId, taskId)
  }

  return {
    list: createLists(driver, cursors),
    changes: createChanges(driver, cursors),
    batch: createBatch(driver, statements.owner),
    stats: createStats(driver),
    trash: trash.list,
    emptyTrash: trash.empty,
    purge: trash.purge,

    /** One task. Throws `task_not_found`, or `not_authorized` when it is somebody else's. */
    read,

    /**
     * Makes a task; with a key that was used before, gives the task of that time instead. Throws `invalid_token` when
     * the person has gone since the token was checked, `idempotency_key_used` when that task is gone for good.
     */
    async create(userId: string, input: TaskCreate, key?: string): Promise<ReadyTask> {
      const task = { user: userId, ...toNewRow(input) }
      if (key !== undefined) return createOnce(task, key)
      const [row] = await statements.insert({ id: Bun.randomUUIDv7(), ...task })
      if (!row) throw new AppError('invalid_token')
      return toReady(row)
    },

    /** Changes what `input` names and nothing else. Throws as `read` does, and `precondition_failed`. */
    async update(userId: string, taskId: string, input: TaskUpdate, ifMatch: Versions): Promise<ReadyTask> {
      wellFormed(taskId)
      const [row] = await statements.change(toPatch(input), { id: taskId, user: userId, ifMatch })
      return afterwards(userId, taskId, row)
    },

    /** Puts a task into the trash, or with `permanent` takes it away for good. Throws as `update` does. */
    async remove(userId: string, taskId: string, permanent: boolean, ifMatch: Versions): Promise<void> {
      wellFormed(taskId)
      const statement = permanent ? statements.erase : statements.trash
      const [row] = await statement({ id: taskId, user: userId, ifMatch })
      if (row?.[0] === 'moved') throw new AppError('precondition_failed')
      if (row?.[0] !== 'written') return refuse(userId, taskId)
    },

    /** Brings a task back from the trash; one that is not there is left as it is. Throws as `update` does. */
    async restore(userId: string, taskId: string, ifMatch: Versions): Promise<ReadyTask> {
      wellFormed(taskId)
      const [row] = await statements.restore({ id: taskId, user: userId, ifMatch })
      if (!row || row[0] === 'absent') return read(userId, taskId)
      return afterwards(userId, taskId, row)
    },
  }
}
