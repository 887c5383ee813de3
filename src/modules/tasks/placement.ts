import { and, count, eq, inArray, isNull } from 'drizzle-orm'
import { alias } from 'drizzle-orm/pg-core'
import type { Db } from '../../db/drizzle.ts'
import { brokenConstraint } from '../../db/pg-error.ts'
import { AppError, type ErrorCode } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import { lists } from '../lists/table.ts'
import { listOf, parentOf, type Step } from './operations.ts'
import { ownIds } from './owned.ts'
import { childrenMax, isLive, tasks } from './table.ts'

type Misplaced = readonly [code: ErrorCode, field: 'list_id' | 'parent_id']

/**
 * The constraints on the list and the parent of a task (table.ts), and the 422 for each. Another user's list or parent is
 * like one that does not exist.
 */
const constraints = {
  tasks_list_fk: ['list_not_found_in_body', 'list_id'],
  tasks_parent_found: ['parent_not_found', 'parent_id'],
  tasks_parent_nested: ['parent_nested', 'parent_id'],
  tasks_children_count: ['too_many_children', 'parent_id'],
} as const satisfies Record<string, Misplaced>

export const misplacedCodes = Object.values(constraints).map(([code]) => code)

/** For `catch`: throws the 422 for a list or a parent that the database has refused, anything else as it is. */
export function throwMisplaced(error: unknown): never {
  const broken: Misplaced | undefined = constraints[brokenConstraint(error) as keyof typeof constraints]
  throw broken ? misplaced(broken, ['body']) : error
}

function misplaced([code, field]: Misplaced, loc: (string | number)[], index?: number): AppError {
  const { code: type, message: msg } = new AppError(code)
  return new AppError(code, { detail: [{ loc: [...loc, field], msg, type }], index })
}

/**
 * Looks at the lists and parents that the steps of a round name. Returns a function that says why a step, asked in their
 * order, cannot have its own. The user's versions are locked, so nothing has changed when the steps are written.
 */
export async function findPlaces(
  tx: Db,
  userId: UserId,
  steps: Step[],
  found: Map<string, { parentId: string | null }>,
): Promise<(step: Step) => AppError | undefined> {
  // A creation that is repeated changes nothing; nor does a parent that stays.
  const isNew = ({ op, id }: Step) => op !== 'create' || !found.has(id)
  const newList = (step: Step) => (isNew(step) ? listOf(step) : undefined)
  const newParent = (step: Step) =>
    isNew(step) && parentOf(step) !== found.get(step.id)?.parentId ? parentOf(step) : undefined
  const newLists = steps.flatMap(step => newList(step) ?? [])
  const families = steps.flatMap(step => {
    const parent = newParent(step)
    return parent ? [step.id, parent] : []
  })
  const known = await ownIds(tx, lists, userId, newLists)
  const live = await findLive(tx, userId, families)

  function brokenBy(step: Step): Misplaced | undefined {
    const list = newList(step)
    if (list && !known.has(list)) return constraints.tasks_list_fk
    const parentId = newParent(step)
    if (!parentId) return undefined
    const parent = live.get(parentId)
    if (!parent) return constraints.tasks_parent_found
    if (parent.parentId || parentId === step.id || live.get(step.id)?.children)
      return constraints.tasks_parent_nested
    if (parent.children >= childrenMax) return constraints.tasks_children_count
    parent.children++
    return undefined
  }

  return step => {
    const broken = brokenBy(step)
    return broken && misplaced(broken, ['body', 'operations', step.index, 'task'], step.index)
  }
}

/** The live ones of these tasks, each with the number of its live children. */
async function findLive(tx: Db, userId: UserId, ids: string[]) {
  if (ids.length === 0) return new Map<string, never>()
  const children = alias(tasks, 'children')
  const isChild = and(
    eq(children.parentId, tasks.id),
    eq(children.userId, userId),
    isNull(children.deletedAt),
  )
  const found = await tx
    .select({ id: tasks.id, parentId: tasks.parentId, children: count(children.id) })
    .from(tasks)
    .leftJoin(children, isChild)
    .where(and(inArray(tasks.id, ids), eq(tasks.userId, userId), isLive))
    .groupBy(tasks.id, tasks.parentId)
  return new Map(found.map(task => [task.id, task]))
}
