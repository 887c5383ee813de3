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
  patch: { list_id?: string | null; parent_id?: string | null }
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

/** Checks the operations of a batch, and returns each as a step or as refused with `validation_failed`. */
export function readOperations(operations: unknown[], isStrict: boolean): (Step | Refusal)[] {
  return operations.map((value, index) => {
    const problems = problemsOf(value, isStrict)
    return problems.length > 0 ? refuseInvalid(value, index, problems) : stepOf(value as Operation, index)
  })
}

function refuseInvalid(value: unknown, index: number, problems: Problem[]): Refusal {
  const { op, id } = (value ?? {}) as Record<string, unknown>
  const detail = problems.map(({ loc: [, ...loc], msg, type }) => ({
    loc: ['body', 'operations', index, ...loc],
    msg,
    type,
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
  if (op === 'create') {
    const own = operation.id ?? operation.task.id
    const id = own?.toLowerCase() ?? Bun.randomUUIDv7()
    const patch = toNewColumns(operation.task)
    return { index, op, version: undefined, id, hasOwnId: own !== undefined, patch }
  }
  const { version } = operation
  const id = operation.id.toLowerCase()
  // PostgreSQL reads the text `now` as the moment at which the transaction began.
  const patch = op === 'delete' ? { deleted_at: 'now' } : toColumns(operation.task)
  return { index, op, version, id, hasOwnId: false, patch }
}

/**
 * The steps in rounds, whose steps are about different tasks, and refer to no parent that another step of the round is
 * about. So a step comes in a later round than those before it that are about its task or its parent, or refer to its task.
 * `parents` has parents, by their children, that the tasks have and the steps do not name.
 */
export function roundsOf(steps: Step[], parents: Map<string, string>): Step[][] {
  const rounds: Step[][] = []
  /** The first round in which a task may be changed, and in which it may be referred to. */
  const changeable = new Map<string, number>()
  const referable = new Map<string, number>()
  for (const step of steps) {
    const taken = step.op === 'delete' ? undefined : parents.get(step.id)
    const its = [parentOf(step), taken].filter(parent => parent !== undefined)
    const round = Math.max(changeable.get(step.id) ?? 0, ...its.map(parent => referable.get(parent) ?? 0))
    changeable.set(step.id, round + 1)
    referable.set(step.id, round + 1)
    for (const parent of its) changeable.set(parent, Math.max(changeable.get(parent) ?? 0, round + 1))
    rounds[round] ??= []
    rounds[round].push(step)
  }
  return rounds
}

/** The parent that a step sets. */
export const parentOf = ({ patch }: Step): string | undefined => patch.parent_id?.toLowerCase()
export const listOf = ({ patch }: Step): string | undefined => patch.list_id?.toLowerCase()
