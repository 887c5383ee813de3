import { and, eq, inArray, sql } from 'drizzle-orm'
import type { Db } from '../../db/drizzle.ts'
import type { UserId } from '../../lib/user-id.ts'
import type { Step } from './operations.ts'
import { assignments, newTask, settableColumns } from './rows.ts'
import { isLive, isTrashed, tasks } from './table.ts'

/** The statements of a batch: each is about many tasks, whose values travel as one list. */

/** Steps as rows, and a task as the patch of its step would leave it. */
const rowsOf = (steps: Pick<Step, 'id' | 'patch'>[]) =>
  sql`jsonb_to_recordset(${sql.param(steps)}::jsonb) as step(id uuid, patch jsonb)`
const patched = sql`jsonb_populate_record(${tasks}, step.patch)`

/** A task of the user that a step names. */
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
export async function findTasks(tx: Db, userId: UserId, steps: Step[]): Promise<Map<string, Found>> {
  const named = steps.filter(({ op, hasOwnId }) => op !== 'create' || hasOwnId)
  if (named.length === 0) return new Map()
  const rows = named.map(({ id, op, patch }) => ({ id, patch: op === 'create' ? {} : patch }))
  const found = await tx
    .select({
      id: tasks.id,
      parentId: tasks.parentId,
      version: tasks.version,
      json: tasks.json,
      isTrashed: sql<boolean>`${isTrashed}`,
      differs: sql<boolean>`${patched} is distinct from ${tasks}`,
    })
    .from(tasks)
    .innerJoin(rowsOf(rows), eq(tasks.id, sql`step.id`))
    .where(eq(tasks.userId, userId))
  return new Map(found.map(task => [task.id, task]))
}

/**
 * The parents, by their children, where one step deletes the parent and another changes the child: the deletion takes the
 * child along. A step that deletes the child as well may do so.
 */
export async function findParents(tx: Db, userId: UserId, steps: Step[]): Promise<Map<string, string>> {
  const { deleted = [], named = [] } = Object.groupBy(steps, ({ op }) =>
    op === 'delete' ? 'deleted' : 'named',
  )
  if (deleted.length === 0 || named.length === 0) return new Map()
  const ids = (steps: Step[]) => steps.map(({ id }) => id)
  const found = await tx
    .select({ id: tasks.id, parentId: sql<string>`${tasks.parentId}` })
    .from(tasks)
    .where(
      and(eq(tasks.userId, userId), inArray(tasks.parentId, ids(deleted)), inArray(tasks.id, ids(named))),
    )
  return new Map(found.map(({ id, parentId }) => [id, parentId]))
}

/** Writes the steps, each with its version, and returns the JSON of the new and changed tasks by their ids. */
export async function write(tx: Db, userId: UserId, steps: (Step & { version: number })[]) {
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
  // The patches name different columns, so all of them are set. The rows are made in a CTE, because Citus refuses a
  // function of columns that is only STABLE in an update.
  const made = tx
    .$with('patched', { id: tasks.id })
    .as(
      sql`select (${patched}).* from ${tasks} join ${rowsOf(patches)} on ${tasks.id} = step.id where ${tasks.userId} = ${userId}`,
    )
  const columns = [...settableColumns, 'updated_at', 'deleted_at', 'version']
  return tx
    .with(made)
    .update(tasks)
    .set(assignments(columns, column => sql`patched.${sql.identifier(column)}`, sql`patched.updated_at`))
    .from(made)
    .where(and(eq(tasks.id, made.id), eq(tasks.userId, userId), isLive))
    .returning(answer)
}
