import type { Db } from '../../db/drizzle.ts'
import { takeVersions, writeInTurn } from '../../db/versions.ts'
import { noPrecondition, type Precondition } from '../../http/entity-tag.ts'
import { createCursors } from '../../lib/cursor.ts'
import { AppError } from '../../lib/errors.ts'
import { mapInTurns } from '../../lib/event-loop-turns.ts'
import { createIdempotency } from '../../lib/idempotency.ts'
import type { UserId } from '../../lib/user-id.ts'
import { isUuid } from '../../lib/uuid.ts'
import type { Log } from '../../telemetry/log.ts'
import { createBatch } from './batch.ts'
import { createChanges } from './changes.ts'
import { createErasure } from './erasure.ts'
import type { TaskCreate, TaskUpdate } from './model.ts'
import { findOwn, findPrior, findPriors, hasLists, type Serialized, throwMissing } from './owned.ts'
import { createPages } from './pages.ts'
import { throwMisplaced } from './placement.ts'
import { insertTask, insertTaskOnce, insertTasks, perColumns, readTask, updateTask } from './statements.ts'
import { createStats } from './stats.ts'
import { eraseTask, restoreTask, trashTask } from './sub-tasks.ts'
import { isLive } from './table.ts'
import { requestText, toColumns } from './to-columns.ts'

export type TaskService = ReturnType<typeof createTaskService>

interface Parts {
  db: Db
  log: Pick<Log, 'error'>
  /** Signs the cursors, and makes ids of idempotency keys. */
  secretKey: string
}

/** What a user can do with tasks. What is about one task is here; each of the others has a file of its own. */
export function createTaskService({ db, log, secretKey }: Parts) {
  const cursors = createCursors(secretKey)
  const identify = createIdempotency(secretKey, 'idempotency')
  const writes = createWrites(db, identify)
  const writesWithin = (tx: Db) => createWrites(tx, identify, (_db, _userId, work) => work(tx))
  const readOne = readTask(db)

  return {
    ...createPages(db, cursors),
    ...createChanges(db, cursors),
    ...createErasure(db, log),
    batch: createBatch(db, writes, writesWithin),
    stats: createStats(db),

    /** One task. Throws `task_not_found`, or `not_authorized` when it is another user's. */
    async read(userId: UserId, taskId: string): Promise<Serialized> {
      if (!isUuid(taskId)) throw new AppError('task_not_found')
      const [task] = await readOne.execute({ id: taskId, user: userId })
      return task ?? throwMissing(db, 'task', userId, taskId)
    },

    ...writes,
  }
}

export type Writes = ReturnType<typeof createWrites>

export type NewTask = Serialized & { id: string }

/** What a request says of a new task, and its `Idempotency-Key`. */
interface Sent {
  input: TaskCreate
  key?: string | undefined
}

/**
 * The changes of one task. One statement creates or updates it. If that has written nothing, and for a deletion or a
 * restore, which take children along, the user's versions are locked first. In a batch, `db` is a transaction that holds
 * them, and `inTurn` goes on in it.
 */
function createWrites(db: Db, identify: ReturnType<typeof createIdempotency>, inTurn = writeInTurn) {
  const insert = perColumns(columns => insertTask(db, columns))
  const insertOnce = perColumns(columns => insertTaskOnce(db, columns))
  const change = perColumns(columns => updateTask(db, columns))
  const creationOf = (userId: UserId, { input, key }: Sent) =>
    identify(userId, { id: input.id, key, request: () => requestText(input) })

  return {
    /**
     * Creates a task. With an id or a key that was sent before, it creates none and returns the first task, as it is now.
     * Throws `invalid_token` when the account was deleted since the token was checked, `id_used` or `idempotency_key_used`
     * when the first task is in the trash or was deleted permanently, `idempotency_key_reused` when the key came with
     * another request.
     */
    async create(userId: UserId, input: TaskCreate, key?: string): Promise<NewTask> {
      const creation = creationOf(userId, { input, key })
      const { id, mayExist, requestHash } = creation
      const task = toColumns(input)
      const columns = Object.keys(task)
      const values = { id, user: userId, request_hash: requestHash, ...task }
      const statement = (mayExist ? insertOnce : insert)(columns)
      const [created] = await statement.execute(values).catch(throwMisplaced)
      if (created) return { id, ...created }
      // It was sent before, the user made another change at the same time, the account is gone, or its rows are moving to
      // another server of a cluster.
      const found = await inTurn(db, userId, async tx => {
        const prior = await findPrior(tx, 'task', userId, creation)
        if (prior) return prior
        const [created] = await insertTask(tx, columns).execute(values)
        return created!
      }).catch(throwMisplaced)
      return { id, ...found }
    },

    /**
     * Creates several tasks in one statement, in their order; their parents are among them. When all of them were sent
     * before, it returns what they are now. `undefined`, and creates none, when some were or a list does not exist. Throws
     * `invalid_token` as `create` does.
     */
    async createAll(userId: UserId, sent: readonly Sent[]): Promise<NewTask[] | undefined> {
      const creations = await mapInTurns(sent, one => creationOf(userId, one))
      const listIds = sent.flatMap(({ input }) => input.list_id ?? [])
      return inTurn(db, userId, async tx => {
        const mayExist = creations.some(({ mayExist }) => mayExist)
        const priors = mayExist ? await findPriors(tx, 'task', userId, creations) : []
        const repeated = priors.flatMap(prior => (prior instanceof AppError ? [] : (prior ?? [])))
        if (repeated.length === sent.length) return repeated
        const areNew = priors.every(prior => prior === undefined)
        if (!(areNew && (await hasLists(tx, userId, listIds)))) return undefined
        const [taken] = await takeVersions(tx, userId, sent.length)
        const rows = await mapInTurns(sent, ({ input }, i) => ({
          ...creations[i]!,
          columns: toColumns(input),
        }))
        const created = await insertTasks(tx, userId, taken!.lastVersion - sent.length + 1, rows)
        // PostgreSQL promises no order.
        return created.sort((one, other) => one.version - other.version)
      })
    },

    /** Changes what `input` names and nothing else. Throws as `read` does, and `precondition_failed`. */
    async update(
      userId: UserId,
      taskId: string,
      input: TaskUpdate,
      precondition: Precondition,
    ): Promise<Serialized> {
      if (!isUuid(taskId)) throw new AppError('task_not_found')
      const patch = toColumns(input)
      const columns = Object.keys(patch)
      const values = { id: taskId, user: userId, ...precondition, ...patch }
      const [updated] = await change(columns).execute(values).catch(throwMisplaced)
      if (updated) return updated
      // There is no such task, it has another version, or nothing differs; or another writer was first.
      return inTurn(db, userId, async tx => {
        const found = await findOwn(tx, 'task', userId, taskId, precondition, isLive)
        const [updated = found] = await updateTask(tx, columns).execute(values)
        return updated
      }).catch(throwMisplaced)
    },

    /**
     * Moves a task and its children to the trash or, with `permanent`, deletes them. Returns their ids and the versions that
     * they had. Throws as `update` does.
     */
    async remove(userId: UserId, taskId: string, permanent: boolean, precondition: Precondition) {
      if (!isUuid(taskId)) throw new AppError('task_not_found')
      return inTurn(db, userId, async tx => {
        await findOwn(tx, 'task', userId, taskId, precondition, permanent ? undefined : isLive)
        const remove = permanent ? eraseTask : trashTask
        return remove(tx, userId, taskId)
      })
    },

    /** Restores a task from the trash; a task in the list stays unchanged. Throws as `update` does. */
    async restore(userId: UserId, taskId: string, precondition: Precondition): Promise<Serialized> {
      if (!isUuid(taskId)) throw new AppError('task_not_found')
      return inTurn(db, userId, async tx => {
        await findOwn(tx, 'task', userId, taskId, precondition)
        await restoreTask(tx, userId, taskId)
        return findOwn(tx, 'task', userId, taskId, noPrecondition)
      }).catch(error => throwMisplaced(error, ['path', 'id']))
    },
  }
}
