import { and, eq, isNotNull, isNull, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { writeInTurn } from '../../db/versions.ts'
import { AppError, type Problem } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import { isUuid } from '../../lib/uuid.ts'
import { trashTasks } from './families.ts'
import type { Operation } from './model.ts'
import { throwMisplacedIn } from './placement.ts'
import { assignments, newTask, settableColumns, toColumns, toNewColumns } from './rows.ts'
import { throwMissing } from './statements.ts'
import { tasks } from './table.ts'

/** An operation as columns. `version` is the one that the client expects; in `write`, the new one. */
interface Step {
  op: Operation['op']
  id: string
  version: number | undefined
  patch: object
}

/**
 * Up to 100 operations in one transaction, all or nothing. The user's versions are locked first: from then on the tasks do
 * not change, so one query decides about all operations, and three statements write them.
 */
export function createBatch(db: Db) {
  /**
   * Carries out all operations or none, and returns the answer as JSON. Throws `validation_failed`; or, with the `index`
   * of the first operation that cannot be done, `task_not_found`, `not_authorized` or `precondition_failed`.
   */
  return async function batch(userId: UserId, operations: Operation[]): Promise<string> {
    const problems = problemsOf(operations)
    if (problems.length > 0) throw new AppError('validation_failed', { detail: problems })
    const steps = operations.map(stepOf)
    const work = writeInTurn(db, userId, async (tx, versions) => {
      const found = await findTasks(tx, userId, steps)
      for (const [index, { op, id, version }] of steps.entries()) {
        if (op === 'create') continue
        const task = found.get(id)
        if (!task || task.isTrashed) return throwMissing(tx, userId, id, { index })
        if (version !== undefined && version !== task.version)
          throw new AppError('precondition_failed', { index })
      }
      const changes = steps
        .filter(({ op, id }) => op === 'create' || found.get(id)!.differs)
        .map(step => ({ ...step, version: ++versions.lastVersion }))
      const written = await write(tx, userId, changes)
      const deleted = steps.flatMap(({ op, id }) => (op === 'delete' ? id : []))
      if (deleted.length > 0) await trashTasks(tx, versions, userId, deleted)
      return new Map([...found.values(), ...written].map(({ id, json }) => [id, json]))
    })
    const tasks = await work.catch(error => throwMisplacedIn(steps, error))
    const results = steps.map(
      ({ op, id }) => `{"op":"${op}","id":"${id}","task":${op === 'delete' ? 'null' : tasks.get(id)}}`,
    )
    return `{"results":[${results}]}`
  }
}

function stepOf(operation: Operation): Step {
  const { op, version } = operation
  if (op === 'create') return { op, version, id: Bun.randomUUIDv7(), patch: toNewColumns(operation.task) }
  const id = operation.id.toLowerCase()
  // PostgreSQL reads the text `now` as the moment at which the transaction began.
  return { op, version, id, patch: op === 'delete' ? { deleted_at: 'now' } : toColumns(operation.task!) }
}

/** Steps as rows, and a task as the patch of its step would leave it. */
const rowsOf = (steps: Pick<Step, 'id' | 'patch'>[]) =>
  sql`jsonb_to_recordset(${sql.param(steps)}::jsonb) as step(id uuid, patch jsonb)`
const patched = sql`jsonb_populate_record(${tasks}, step.patch)`

/** The user's tasks that the steps name, and whether the step would change them. */
async function findTasks(tx: Db, userId: UserId, steps: Step[]) {
  const found = await tx
    .select({
      id: tasks.id,
      version: tasks.version,
      json: tasks.json,
      isTrashed: sql<boolean>`${isNotNull(tasks.deletedAt)}`,
      differs: sql<boolean>`${patched} is distinct from ${tasks}`,
    })
    .from(tasks)
    .innerJoin(rowsOf(steps), eq(tasks.id, sql`step.id`))
    .where(eq(tasks.userId, userId))
  return new Map(found.map(task => [task.id, task]))
}

/** Writes the steps, each with its version, and returns the new and changed tasks. */
async function write(tx: Db, userId: UserId, steps: (Step & { version: number })[]) {
  const { create = [], change = [] } = Object.groupBy(steps, ({ op }) => (op === 'create' ? op : 'change'))
  const answer = { id: tasks.id, json: tasks.json }

  const rows = sql.param(create.map(({ id, version, patch }) => ({ ...patch, id, version })))
  const given = { id: sql`r.id`, user_id: sql`${userId}::uuid`, version: sql`r.version` }
  const row = newTask(given, field => sql`r.${sql.identifier(field)}`)
  const made = await tx
    .insert(tasks)
    .select(sql`select ${row} from jsonb_populate_recordset(null::${tasks}, ${rows}::jsonb) r`)
    .returning(answer)

  // The patches name different columns, so all of them are set. A deletion does not count as an update of the task.
  const patches = change.map(({ op, id, version, patch }) => ({
    id,
    patch: { ...patch, version, ...(op === 'update' && { updated_at: 'now' }) },
  }))
  const columns = [...settableColumns, 'updated_at', 'deleted_at', 'version']
  // In a CTE, because Citus refuses a function of columns that is only STABLE in an update.
  const patchedTasks = tx
    .$with('patched', { id: tasks.id })
    .as(
      sql`select (${patched}).* from ${tasks} join ${rowsOf(patches)} on ${tasks.id} = step.id where ${tasks.userId} = ${userId}`,
    )
  const updated = await tx
    .with(patchedTasks)
    .update(tasks)
    .set(assignments(columns, column => sql`patched.${sql.identifier(column)}`, sql`patched.updated_at`))
    .from(patchedTasks)
    .where(and(eq(tasks.id, patchedTasks.id), eq(tasks.userId, userId), isNull(tasks.deletedAt)))
    .returning(answer)

  return [...made, ...updated]
}

/** What the schema does not check: what goes with which operation, and that no task is named twice. */
function problemsOf(operations: Operation[]): Problem[] {
  const seen = new Set<string>()
  return operations.flatMap((operation, i) => {
    const { op, id, version } = operation
    const problem = (field: string, type: string, msg: string): Problem => ({
      loc: ['body', 'operations', i, field],
      msg,
      type,
    })
    const problems: Problem[] = []
    if (op === 'create') {
      if (id !== undefined) problems.push(problem('id', 'not_combinable', 'Not with create'))
      if (version !== undefined) problems.push(problem('version', 'not_combinable', 'Not with create'))
      return problems
    }
    if (op === 'update' && !operation.task) problems.push(problem('task', 'missing', 'Field required'))
    const key = id.toLowerCase()
    if (!isUuid(id)) problems.push(problem('id', 'uuid', 'Input should be the id of a task'))
    else if (seen.has(key)) problems.push(problem('id', 'duplicate', 'A task can come once only'))
    seen.add(key)
    return problems
  })
}
