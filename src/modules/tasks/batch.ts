import { and, eq, inArray, isNotNull, isNull, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import { taskTombstones } from '../../db/tables.ts'
import { type Versions, writeInTurn } from '../../db/versions.ts'
import { problemsMax } from '../../http/problems.ts'
import { AppError, type Problem } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import { trashTasks } from './families.ts'
import { type Outcome, type Refusal, readOperations, roundsOf, type Step } from './operations.ts'
import { findPlaces } from './placement.ts'
import { assignments, newTask, settableColumns } from './rows.ts'
import { foreignTasks } from './statements.ts'
import { tasks } from './table.ts'

/** How a batch is carried out. */
interface BatchOptions {
  /** All or nothing, if not said; otherwise each operation for itself. */
  isAtomic?: boolean
  /** Whether unknown fields are refused. */
  isStrict?: boolean
}

/** How long a batch that is not atomic begins further rounds. A transaction may take 2 s. */
const roundsMs = 1500

/**
 * Up to 100 operations in one transaction. The user's versions are locked first: from then on the tasks do not change. The
 * operations are carried out in rounds, in which each is about another task: for a round, one query decides about all
 * operations, and two statements write them. Nearly every batch is one round. `now` is for tests: the clock, in milliseconds.
 */
export function createBatch(db: Db, now = () => performance.now()) {
  /**
   * Carries out the operations, and returns what became of each, in their order. Of an atomic batch, it throws
   * `validation_failed` with everything that is wrong; or, with the `index` of the first operation that cannot be carried
   * out, `task_not_found`, `not_authorized`, `precondition_failed` or `id_used`. Otherwise these are outcomes, and so is
   * `unavailable` for operations that the time did not suffice for.
   */
  return async function batch(
    userId: UserId,
    operations: unknown[],
    { isAtomic = true, isStrict = false }: BatchOptions = {},
  ): Promise<Outcome[]> {
    const until = now() + roundsMs
    const read = readOperations(operations, isStrict)
    const refused = read.filter(isRefusal)
    if (isAtomic && refused.length > 0) throw allProblems(refused)

    const outcomes = await writeInTurn(db, userId, async (tx, versions) => {
      const outcomes: Outcome[] = []
      let firstFailed = Number.POSITIVE_INFINITY
      for (const round of roundsOf(read.filter(isStep))) {
        const isLate = !isAtomic && outcomes.length > 0 && now() > until
        // What comes after a failure is rolled back with it; what comes before it may have failed first.
        const steps = isAtomic ? round.filter(({ index }) => index < firstFailed) : round
        outcomes.push(...(isLate ? steps.map(unavailable) : await carryOut(tx, userId, versions, steps)))
        firstFailed = Math.min(...outcomes.filter(isRefusal).map(({ index }) => index))
      }
      const failed = outcomes.filter(isRefusal).find(({ index }) => index === firstFailed)
      if (isAtomic && failed) throw failed.failure
      return outcomes
    })
    return [...refused, ...outcomes].sort((a, b) => a.index - b.index)
  }
}

const allProblems = (refused: Refusal[]) =>
  new AppError('validation_failed', {
    detail: refused.flatMap(({ failure }) => failure.detail as Problem[]).slice(0, problemsMax),
  })

const isStep = (read: Step | Refusal): read is Step => !('failure' in read)
const isRefusal = (read: Step | Refusal | Outcome): read is Refusal => 'failure' in read

const refuse = ({ index, op, id }: Step, failure: AppError): Refusal => ({ index, op, id, failure })
const unavailable = (step: Step) => refuse(step, new AppError('unavailable', { index: step.index }))

/** Carries out the steps of a round that can be. */
async function carryOut(tx: Db, userId: UserId, versions: Versions, steps: Step[]): Promise<Outcome[]> {
  const found = await findTasks(tx, userId, steps)
  const absent = steps.filter(({ id }) => !found.has(id))
  const deleted = await findDeleted(tx, userId, absent)
  const foreign = await findForeign(tx, userId, absent)
  const placementFailure = await findPlaces(tx, userId, steps, found)
  const failures = new Map(
    steps.map(step => {
      const failure = failureOf(step, found.get(step.id), deleted, foreign)
      return [step, failure ?? placementFailure(step)] as const
    }),
  )
  const changes = steps
    .filter(step => !failures.get(step) && (found.get(step.id)?.differs ?? true))
    .map(step => ({ ...step, version: ++versions.lastVersion }))
  const written = await write(tx, userId, changes)
  const trashed = changes.filter(({ op }) => op === 'delete').map(({ id }) => id)
  // Their children.
  if (trashed.length > 0) await trashTasks(tx, versions, userId, trashed)

  return steps.map(step => {
    const { index, op, id } = step
    const failure = failures.get(step)
    if (failure) return refuse(step, failure)
    return { index, op, id, json: op === 'delete' ? null : (written.get(id) ?? found.get(id)!.json) }
  })
}

/** Why a step cannot be carried out; `undefined` when it can. */
function failureOf(
  { index, op, id, version }: Step,
  task: Found | undefined,
  deleted: Set<string>,
  foreign: Set<string>,
): AppError | undefined {
  if (op === 'create')
    return task?.isTrashed || deleted.has(id) ? new AppError('id_used', { index }) : undefined
  if (!task || task.isTrashed)
    return new AppError(foreign.has(id) ? 'not_authorized' : 'task_not_found', { index })
  if (version === undefined || version === task.version) return undefined
  return new AppError('precondition_failed', { index, current: JSON.parse(task.json) })
}

/** Steps as rows, and a task as the patch of its step would leave it. */
const rowsOf = (steps: Pick<Step, 'id' | 'patch'>[]) =>
  sql`jsonb_to_recordset(${sql.param(steps)}::jsonb) as step(id uuid, patch jsonb)`
const patched = sql`jsonb_populate_record(${tasks}, step.patch)`

export interface Found {
  id: string
  parentId: string | null
  version: number
  json: string
  isTrashed: boolean
  /** Whether the step would change it; a create changes none that exists. */
  differs: boolean
}

/** The user's tasks that the steps name. */
async function findTasks(tx: Db, userId: UserId, steps: Step[]): Promise<Map<string, Found>> {
  const named = steps.filter(({ op, hasOwnId }) => op !== 'create' || hasOwnId)
  if (named.length === 0) return new Map()
  const rows = named.map(({ id, op, patch }) => ({ id, patch: op === 'create' ? {} : patch }))
  const found = await tx
    .select({
      id: tasks.id,
      parentId: tasks.parentId,
      version: tasks.version,
      json: tasks.json,
      isTrashed: sql<boolean>`${isNotNull(tasks.deletedAt)}`,
      differs: sql<boolean>`${patched} is distinct from ${tasks}`,
    })
    .from(tasks)
    .innerJoin(rowsOf(rows), eq(tasks.id, sql`step.id`))
    .where(eq(tasks.userId, userId))
  return new Map(found.map(task => [task.id, task]))
}

/** The ids that these steps want to use, of tasks that the user has deleted permanently. */
async function findDeleted(tx: Db, userId: UserId, steps: Step[]): Promise<Set<string>> {
  const ids = steps.filter(({ hasOwnId }) => hasOwnId).map(({ id }) => id)
  if (ids.length === 0) return new Set()
  const { id, userId: owner } = taskTombstones
  const found = await tx
    .select({ id })
    .from(taskTombstones)
    .where(and(eq(owner, userId), inArray(id, ids)))
  return new Set(found.map(({ id }) => id))
}

/** The ids that these steps want to change or delete, of tasks that only other users have. */
async function findForeign(tx: Db, userId: UserId, steps: Step[]): Promise<Set<string>> {
  const ids = steps.filter(({ op }) => op !== 'create').map(({ id }) => id)
  return ids.length === 0 ? new Set() : foreignTasks(tx, userId, ids)
}

/** Writes the steps, each with its version, and returns the JSON of the new and changed tasks by their ids. */
async function write(tx: Db, userId: UserId, steps: (Step & { version: number })[]) {
  const { create = [], change = [] } = Object.groupBy(steps, ({ op }) => (op === 'create' ? op : 'change'))
  const written = [...(await insert(tx, userId, create)), ...(await update(tx, userId, change))]
  return new Map(written.map(({ id, json }) => [id, json]))
}

const answer = { id: tasks.id, json: tasks.json }

async function insert(tx: Db, userId: UserId, steps: (Step & { version: number })[]) {
  if (steps.length === 0) return []
  const rows = sql.param(steps.map(({ id, version, patch }) => ({ ...patch, id, version })))
  const given = { id: sql`r.id`, user_id: sql`${userId}::uuid`, version: sql`r.version` }
  const row = newTask(given, field => sql`r.${sql.identifier(field)}`)
  return tx
    .insert(tasks)
    .select(sql`select ${row} from jsonb_populate_recordset(null::${tasks}, ${rows}::jsonb) r`)
    .returning(answer)
}

async function update(tx: Db, userId: UserId, steps: (Step & { version: number })[]) {
  if (steps.length === 0) return []
  // A deletion does not count as an update of the task.
  const patches = steps.map(({ op, id, version, patch }) => ({
    id,
    patch: { ...patch, version, ...(op === 'update' && { updated_at: 'now' }) },
  }))
  // The patches name different columns, so all of them are set.
  const columns = [...settableColumns, 'updated_at', 'deleted_at', 'version']
  return tx
    .update(tasks)
    .set(assignments(columns, column => sql`(${patched}).${sql.identifier(column)}`))
    .from(rowsOf(patches))
    .where(and(eq(tasks.id, sql`step.id`), eq(tasks.userId, userId), isNull(tasks.deletedAt)))
    .returning(answer)
}
