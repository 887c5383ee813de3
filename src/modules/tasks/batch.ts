import { and, eq, isNotNull, isNull, sql } from 'drizzle-orm'
import type { Db } from '../../db/client.ts'
import { taskCounters, tasks } from '../../db/schema.ts'
import { AppError, type Problem } from '../../errors.ts'
import { isUuid } from '../../uuid.ts'
import type { Operation, TaskCreate } from './model.ts'
import { assignments, fields, newTask, toNewRow, toPatch } from './rows.ts'
import { lockCounter, refusal } from './statements.ts'

/** An operation with its columns; `version` is the one that the client expects, and later the one that it gets. */
interface Step {
  op: Operation['op']
  id: string
  version: number | undefined
  patch?: object
}

/**
 * Up to 100 operations in one transaction, all or nothing. The counter is locked first: from then on the tasks stay as
 * they are, so that one look at them decides, and each kind of operation is one statement.
 */
export function createBatch(db: Db) {
  /**
   * Carries out all operations or none, and returns the answer as JSON. Throws `validation_failed`; or, with the `index`
   * of the first operation that cannot be done, `task_not_found`, `not_authorized` or `precondition_failed`.
   */
  return async function batch(userId: string, operations: Operation[]): Promise<string> {
    const problems = problemsOf(operations)
    if (problems.length > 0) throw new AppError('validation_failed', { detail: problems })
    const steps = operations.map(stepOf)
    const json = await db.transaction(async tx => {
      const counter = await lockCounter(tx, userId)
      if (!counter) throw new AppError('invalid_token')
      const found = await look(tx, userId, steps)
      for (const [index, step] of steps.entries()) await check(tx, userId, step, found.get(step.id), index)
      const changes = steps
        .filter(({ op, id }) => op !== 'update' || found.get(id)!.differs)
        .map((step, i) => ({ ...step, version: counter.seq + 1 + i }))
      const written = await write(tx, userId, changes)
      return new Map([...found.values(), ...written].map(({ id, json }) => [id, json]))
    })
    const results = steps.map(({ op, id }) => {
      const task = op === 'delete' ? 'null' : json.get(id)
      return `{"op":"${op}","id":"${id}","task":${task}}`
    })
    return `{"results":[${results}]}`
  }
}

function stepOf({ op, id, version, task }: Operation): Step {
  if (op === 'create') return { op, version, id: Bun.randomUUIDv7(), patch: toNewRow(task as TaskCreate) }
  const step = { op, version, id: id!.toLowerCase() }
  return op === 'update' ? { ...step, patch: toPatch(task!) } : step
}

/** The steps as rows `step` of a statement. */
const rowsOf = (steps: Pick<Step, 'id' | 'version' | 'patch'>[]) =>
  sql`jsonb_to_recordset(${sql.param(steps)}::jsonb) as step(id uuid, version bigint, patch jsonb)`

/** The user's tasks that the steps name, and whether a patch would make a difference. */
async function look(tx: Db, userId: string, steps: Step[]) {
  const found = await tx
    .select({
      id: tasks.id,
      version: tasks.version,
      json: tasks.json,
      isTrashed: sql<boolean>`${isNotNull(tasks.deletedAt)}`,
      differs: sql<boolean>`jsonb_populate_record(${tasks}, step.patch) is distinct from ${tasks}`,
    })
    .from(tasks)
    .innerJoin(rowsOf(steps.filter(({ op }) => op !== 'create')), eq(tasks.id, sql`step.id`))
    .where(eq(tasks.userId, userId))
  return new Map(found.map(task => [task.id, task]))
}

/** Throws when a step cannot be done. */
async function check(tx: Db, userId: string, step: Step, task: Found | undefined, index: number) {
  if (step.op === 'create') return
  if (!task || task.isTrashed) throw await refusal(tx, userId, step.id, { index })
  if (step.version !== undefined && step.version !== task.version)
    throw new AppError('precondition_failed', { index })
}

type Found = typeof look extends (...args: never[]) => Promise<Map<string, infer Task>> ? Task : never

/** Writes what the steps say, each with its number. Returns the tasks that are new or changed. */
async function write(tx: Db, userId: string, steps: Step[]): Promise<{ id: string; json: string }[]> {
  const { create = [], update = [], delete: trash = [] } = Object.groupBy(steps, ({ op }) => op)
  const written = [
    ...(create.length > 0 ? await insertAll(tx, userId, create) : []),
    ...(update.length > 0 ? await updateAll(tx, userId, update) : []),
  ]
  if (trash.length > 0) await trashAll(tx, userId, trash)
  const last = steps.at(-1)
  if (last) await tx.update(taskCounters).set({ seq: last.version }).where(eq(taskCounters.userId, userId))
  return written
}

const answer = { id: tasks.id, json: tasks.json }

function insertAll(tx: Db, userId: string, steps: Step[]) {
  const rows = steps.map(({ id, version, patch }) => ({ ...patch, id, version }))
  const given = ['id', 'version', ...fields]
  const row = newTask(column => {
    if (column === 'user_id') return sql`${userId}::uuid`
    return given.includes(column) ? sql`r.${sql.identifier(column)}` : undefined
  })
  return tx
    .insert(tasks)
    .select(sql`select ${row} from jsonb_populate_recordset(null::${tasks}, ${sql.param(rows)}::jsonb) r`)
    .returning(answer)
}

function updateAll(tx: Db, userId: string, steps: Step[]) {
  // The whole row as it will be; which columns a patch names differs from step to step.
  const changed = tx.$with('changed', { id: tasks.id }).as(sql`
    select r.* from ${rowsOf(steps)} join ${tasks} t on t.id = step.id and t.user_id = ${userId},
    jsonb_populate_record(t, step.patch || jsonb_build_object('version', step.version)) r`)
  return tx
    .with(changed)
    .update(tasks)
    .set({
      ...assignments(['version', ...fields], column => sql`${changed}.${sql.identifier(column)}`),
      updatedAt: sql`now()`,
    })
    .from(changed)
    .where(and(eq(tasks.id, changed.id), eq(tasks.userId, userId), isNull(tasks.deletedAt)))
    .returning(answer)
}

async function trashAll(tx: Db, userId: string, steps: Step[]) {
  await tx
    .update(tasks)
    .set({ deletedAt: sql`now()`, version: sql`step.version` })
    .from(rowsOf(steps))
    .where(and(eq(tasks.id, sql`step.id`), eq(tasks.userId, userId), isNull(tasks.deletedAt)))
}

/** What the schema cannot say: what each kind of operation needs, and that no task may come twice. */
function problemsOf(operations: Operation[]): Problem[] {
  const seen = new Set<string>()
  return operations.flatMap(({ op, id, version, task }, i) => {
    const problem = (field: string, type: string, msg: string): Problem => ({
      loc: ['body', 'operations', i, ...field.split('.')],
      msg,
      type,
    })
    const missing = (field: string) => problem(field, 'missing', 'Field required')
    const problems: Problem[] = []
    if (op !== 'delete' && !task) problems.push(missing('task'))
    if (op === 'create') {
      if (task && task.title === undefined) problems.push(missing('task.title'))
      if (id !== undefined) problems.push(problem('id', 'not_combinable', 'Not with create'))
      if (version !== undefined) problems.push(problem('version', 'not_combinable', 'Not with create'))
      return problems
    }
    if (id === undefined) return [...problems, missing('id')]
    const key = id.toLowerCase()
    if (!isUuid(id)) problems.push(problem('id', 'uuid', 'Input should be the id of a task'))
    else if (seen.has(key)) problems.push(problem('id', 'duplicate', 'A task can come once only'))
    seen.add(key)
    return problems
  })
}
