import { createCheck, unknownFields } from '../../http/problems.ts'
import { AppError, type Problem } from '../../lib/errors.ts'
import { isUuid } from '../../lib/uuid.ts'
import { type Operation, operation } from './model.ts'
import { toColumns, toNewColumns } from './rows.ts'

/** An operation of a batch as columns. */
export interface Step {
  /** Its place in the batch, from 0. */
  index: number
  op: Operation['op']
  id: string
  /** Whether it creates a task under an id of the client's own, which may be taken. */
  hasOwnId: boolean
  /** The version that the client expects. */
  version: number | undefined
  /** The list and the parent that it names, in lower case. */
  listId: string | null | undefined
  parentId: string | null | undefined
  patch: object
}

/** An operation that cannot be carried out; of an invalid one, `op` and `id` are what it says. */
export interface Refusal {
  index: number
  op: unknown
  id: unknown
  failure: AppError
}

/** What became of an operation: the task as JSON, `null` for a deletion, or why not. */
export type Outcome = Refusal | { index: number; op: Operation['op']; id: string; json: string | null }

/** How often a batch may name the same task: each time costs two statements. */
const sameTaskMax = 10

/** Checks the operations of a batch, and returns each as a step or as refused with `validation_failed`. */
export function readOperations(operations: unknown[], isStrict: boolean): (Step | Refusal)[] {
  const counts = new Map<string, number>()
  return operations.map((value, index) => {
    const problems = problemsOf(value, isStrict)
    if (problems.length > 0) return refuseInvalid(value, index, problems)
    const step = stepOf(value as Operation, index)
    const count = (counts.get(step.id) ?? 0) + 1
    counts.set(step.id, count)
    return count > sameTaskMax ? refuseInvalid(value, index, [tooMany]) : step
  })
}

const tooMany = {
  loc: ['body', 'id'],
  type: 'too_many',
  msg: `A task can come at most ${sameTaskMax} times`,
}

function refuseInvalid(value: unknown, index: number, problems: Problem[]): Refusal {
  const { op, id } = (value ?? {}) as Record<string, unknown>
  const detail = problems.map(({ loc: [, ...loc], ...problem }) => ({
    ...problem,
    loc: ['body', 'operations', index, ...loc],
  }))
  return { index, op, id, failure: new AppError('validation_failed', { detail, index }) }
}

const checkOperation = createCheck(operation)

/** What is wrong with an operation, each place beginning with `body` as if it were the whole body. */
function problemsOf(value: unknown, isStrict: boolean): Problem[] {
  const problems = [...checkOperation(value), ...(isStrict ? unknownFields(operation, value, ['body']) : [])]
  if (problems.length > 0) return problems
  const read = value as Operation
  const problem = (field: string, type: string, msg: string) => [{ loc: ['body', field], type, msg }]
  if (read.op !== 'create')
    return isUuid(read.id) ? [] : problem('id', 'uuid', 'Input should be the id of a task')
  // Ignored like other unknown fields, it would look like a condition that holds.
  if ('version' in read) return problem('version', 'not_combinable', 'Not with create')
  const { id, task } = read
  const isAmbiguous = id !== undefined && task.id !== undefined && !isSameId(id, task.id)
  return isAmbiguous ? problem('id', 'not_combinable', 'The task has another id') : []
}

const isSameId = (one: string, other: string) => one.toLowerCase() === other.toLowerCase()

function stepOf(operation: Operation, index: number): Step {
  const { op } = operation
  const { list_id: listId, parent_id: parentId } = op === 'delete' ? {} : operation.task
  const place = { listId: listId?.toLowerCase(), parentId: parentId?.toLowerCase() }
  if (op === 'create') {
    const own = operation.id ?? operation.task.id
    const id = own?.toLowerCase() ?? Bun.randomUUIDv7()
    const patch = toNewColumns(operation.task)
    return { index, op, version: undefined, id, hasOwnId: own !== undefined, ...place, patch }
  }
  // PostgreSQL reads the text `now` as the moment at which the transaction began.
  const patch = op === 'delete' ? { deleted_at: 'now' } : toColumns(operation.task)
  const { version, id } = operation
  return { index, op, version, id: id.toLowerCase(), hasOwnId: false, ...place, patch }
}

/**
 * The steps in rounds: those of a round are about different tasks, and may be written together. A step stands behind the
 * earlier ones about its task, about the parent that it names, and about the one in `parents`.
 */
export function roundsOf(steps: Step[], parents: Map<string, string>): Step[][] {
  const rounds: Step[][] = []
  /** The first round that is free for a step about a task, and for one about a child of it. */
  const free = new Map<string, { self: number; child: number }>()
  const freeFor = (id: string | null | undefined) => (id && free.get(id)) || { self: 0, child: 0 }
  for (const step of steps) {
    const { id, parentId } = step
    const parentIds = [parentId, parents.get(id)]
    const round = Math.max(freeFor(id).self, ...parentIds.map(parent => freeFor(parent).child))
    for (const parent of parentIds)
      if (parent) free.set(parent, { ...freeFor(parent), self: Math.max(freeFor(parent).self, round) })
    free.set(id, { self: round + 1, child: round + 1 })
    rounds[round] ??= []
    rounds[round].push(step)
  }
  return rounds
}
