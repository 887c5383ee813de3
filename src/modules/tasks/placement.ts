import { and, count, eq, inArray, isNull } from 'drizzle-orm'
import { alias } from 'drizzle-orm/pg-core'
import type { Db } from '../../db/drizzle.ts'
import { brokenConstraint } from '../../db/pg-error.ts'
import { AppError, type ErrorCode } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import { lists } from '../lists/table.ts'
import { listOf, parentOf, type Step } from './operations.ts'
import { childrenMax, tasks } from './table.ts'

type Refusal = [code: ErrorCode, field: 'list_id' | 'parent_id']

/** The 422 of a list or a parent that a task cannot have. Another user's is none, like one that does not exist. */
export const misplacedCodes = [
  'list_not_found_in_body',
  'parent_not_found',
  'parent_nested',
  'too_many_children',
] as const satisfies ErrorCode[]

/** The constraints on them (table.ts). */
const refusals: Record<
  'tasks_list_fk' | 'tasks_parent_found' | 'tasks_parent_nested' | 'tasks_children_count',
  Refusal
> = {
  tasks_list_fk: ['list_not_found_in_body', 'list_id'],
  tasks_parent_found: ['parent_not_found', 'parent_id'],
  tasks_parent_nested: ['parent_nested', 'parent_id'],
  tasks_children_count: ['too_many_children', 'parent_id'],
}

/** For `catch`: throws the 422 for a list or a parent that the database has refused, anything else as it is. */
export function throwMisplaced(error: unknown): never {
  const refusal = refusals[(brokenConstraint(error) ?? '') as keyof typeof refusals] as Refusal | undefined
  throw refusal ? misplaced(refusal, ['body']) : error
}

function misplaced([code, field]: Refusal, loc: (string | number)[], index?: number): AppError {
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
  const nested = steps.filter(newParent)
  const known = await findLists(
    tx,
    userId,
    steps.flatMap(step => newList(step) ?? []),
  )
  const live = await findLive(
    tx,
    userId,
    nested.flatMap(step => [step.id, newParent(step)!]),
  )

  function refusalOf(step: Step): Refusal | undefined {
    const list = newList(step)
    if (list && !known.has(list)) return refusals.tasks_list_fk
    const parentId = newParent(step)
    if (!parentId) return undefined
    const parent = live.get(parentId)
    if (!parent) return refusals.tasks_parent_found
    if (parent.parentId || parentId === step.id || live.get(step.id)?.children)
      return refusals.tasks_parent_nested
    if (parent.children >= childrenMax) return refusals.tasks_children_count
    parent.children++
    return undefined
  }

  return step => {
    const refusal = refusalOf(step)
    return refusal && misplaced(refusal, ['body', 'operations', step.index, 'task'], step.index)
  }
}

async function findLists(tx: Db, userId: UserId, ids: string[]): Promise<Set<string>> {
  if (ids.length === 0) return new Set()
  const which = and(eq(lists.userId, userId), inArray(lists.id, ids))
  const found = await tx.select({ id: lists.id }).from(lists).where(which)
  return new Set(found.map(({ id }) => id))
}

interface Live {
  id: string
  parentId: string | null
  /** How many live children it has. */
  children: number
}

async function findLive(tx: Db, userId: UserId, ids: string[]): Promise<Map<string, Live>> {
  if (ids.length === 0) return new Map()
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
    .where(and(inArray(tasks.id, ids), eq(tasks.userId, userId), isNull(tasks.deletedAt)))
    .groupBy(tasks.id, tasks.parentId)
  return new Map(found.map(task => [task.id, task]))
}
