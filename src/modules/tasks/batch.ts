import type { Db } from '../../db/drizzle.ts'
import { isOutage, unavailable } from '../../db/pg-error.ts'
import { writeInTurn } from '../../db/versions.ts'
import { createCheck } from '../../http/problems.ts'
import { unknownFields } from '../../http/unknown-names.ts'
import { AppError, findAppError, type Problem, problemsMax } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import { isUuid } from '../../lib/uuid.ts'
import { type Operation, operation, operationNames, type TaskCreate } from './model.ts'
import { ifVersion } from './owned.ts'
import type { NewTask, Writes } from './service.ts'
import { readTask } from './statements.ts'

/** How a batch is carried out. */
interface BatchOptions {
  /** All or nothing, by default; otherwise each operation on its own. */
  isAtomic?: boolean
  /** Whether unknown fields are refused. */
  isStrict?: boolean
  /** Creates that were sent before with this key make nothing and return what they made. */
  key?: string | undefined
}

/** What became of an operation: the task as JSON, `null` for a deletion, or why not. */
export type Outcome =
  | { op: Operation['op']; id: string; json: string | null }
  | { op?: Operation['op'] | undefined; id?: string | undefined; failure: AppError }

/**
 * Up to 100 operations, one after the other. Each does what the request for one task does: in one transaction, or each on
 * its own; creates that follow one another are one statement. `writesWithin` are the writes in a transaction that has
 * locked the user's versions.
 */
export function createBatch(db: Db, writes: Writes, writesWithin: (tx: Db) => Writes) {
  const readOne = readTask(db)

  /** Throws why an atomic batch failed. What its operations made of a task is undone: a 412 has the task as it is after that. */
  async function throwUndone(error: unknown, userId: UserId, operations: Operation[]): Promise<never> {
    const failure = findAppError(error)
    if (failure?.code === 'precondition_failed') {
      const { id } = operations[failure.index!]!
      const [task] = await readOne.execute({ id, user: userId })
      failure.current = task && JSON.parse(task.json)
    }
    throw error
  }

  /**
   * Carries out the operations, and returns what became of each, in their order. Of an atomic batch, it throws
   * `validation_failed` with everything that is wrong; or, with its `index`, why the first operation that cannot be carried
   * out cannot be. Otherwise these are outcomes. Throws `unavailable` when nothing was written.
   */
  return async function batch(
    userId: UserId,
    operations: unknown[],
    { isAtomic = true, isStrict = false, key }: BatchOptions = {},
  ): Promise<Outcome[]> {
    const problems = problemsOfEach(operations, isStrict)
    const valid = operations.map((value, i) => (problems[i]!.length > 0 ? undefined : (value as Operation)))
    const steps = { userId, operations: valid, key }
    if (!isAtomic) return eachForItself(createStep({ ...steps, writes }), operations, problems)
    const detail = problems.flat()
    if (detail.length > 0) throw new AppError('validation_failed', { detail })
    return writeInTurn(db, userId, tx =>
      allOrNothing(createStep({ ...steps, writes: writesWithin(tx) }), operations.length),
    ).catch(error => throwUndone(error, userId, valid as Operation[]))
  }
}

type Step = ReturnType<typeof createStep>

async function allOrNothing(step: Step, count: number): Promise<Outcome[]> {
  const outcomes: Outcome[] = []
  for (let index = 0; index < count; index++) {
    const outcome = await step(index).catch(error => {
      // It is not about this operation: the database does not answer.
      throw isOutage(error) ? error : failureOf(error, index)
    })
    outcomes.push(outcome)
  }
  return outcomes
}

/** When the database does not answer, the operations after that are not tried: each might wait as long. */
async function eachForItself(step: Step, operations: unknown[], problems: Problem[][]): Promise<Outcome[]> {
  const outcomes: Outcome[] = []
  let isAway = false
  for (const [index, value] of operations.entries()) {
    const detail = problems[index]!
    const refuse = (failure: AppError) => ({ ...namesOf(value), failure })
    let outcome: Outcome
    if (detail.length > 0) outcome = refuse(new AppError('validation_failed', { detail, index }))
    else if (isAway) outcome = refuse(new AppError('unavailable', { index }))
    else outcome = await step(index).catch(error => refuse(failureOf(error, index)))
    outcomes.push(outcome)
    isAway ||= 'failure' in outcome && outcome.failure.code === 'unavailable'
  }
  if (isAway && outcomes.every(outcome => 'failure' in outcome)) throw new AppError('unavailable')
  return outcomes
}

/** What an operation says of itself, which may be anything: only what a result can have. */
function namesOf(value: unknown) {
  const { op, id } = (value ?? {}) as Record<string, unknown>
  return { op: operationNames.find(name => name === op), id: typeof id === 'string' ? id : undefined }
}

type Create = Extract<Operation, { op: 'create' }>

interface Steps {
  writes: Writes
  userId: UserId
  /** Without those that have problems. */
  operations: (Operation | undefined)[]
  key: string | undefined
}

/** Carries out the operations of one batch, each by a call, in their order; with a create those that follow it, too. */
function createStep({ writes, userId, operations, key }: Steps) {
  /** What was created together, by index; and the index after the creates that were tried together. */
  const created = new Map<number, NewTask>()
  let end = 0
  /**
   * Tasks that went to the trash with their parents, and the versions that they had. The batch may delete them as well: the
   * client still has them.
   */
  const takenAlong = new Map<string, number>()

  // The first one has the key of `POST /tasks`; a client cannot send the others.
  const keyOf = (index: number) => (key && index > 0 ? `${key}\0${index}` : key)

  async function create(operation: Create, index: number): Promise<NewTask> {
    if (index >= end) {
      const inputs = createsFrom(operations, index)
      end = index + inputs.length
      const sent = inputs.map((input, i) => ({ input, key: keyOf(index + i) }))
      const tasks = sent.length > 1 ? await writes.createAll(userId, sent) : undefined
      for (const [i, task] of tasks?.entries() ?? []) created.set(index + i, task)
    }
    return created.get(index) ?? writes.create(userId, inputOf(operation), keyOf(index))
  }

  return async function step(index: number): Promise<Outcome> {
    const operation = operations[index]!
    const { op } = operation
    if (op === 'create') {
      const { id, json } = await create(operation, index)
      return { op, id, json }
    }
    const id = operation.id.toLowerCase()
    const precondition = ifVersion(operation.version)
    if (op === 'update') {
      const { json } = await writes.update(userId, id, operation.task, precondition)
      return { op, id, json }
    }
    const before = takenAlong.get(id)
    if (before === undefined) {
      const removed = await writes.remove(userId, id, false, precondition)
      for (const { id, version } of removed) takenAlong.set(id, version)
    } else if ((operation.version ?? before) !== before) throw new AppError('precondition_failed')
    takenAlong.delete(id)
    return { op, id, json: null }
  }
}

const inputOf = ({ id, task }: Create): TaskCreate => ({ ...task, ...(id && { id }) })

/**
 * The tasks to create from there on in one statement, which has to succeed: none repeats another one's id, and a parent is
 * an earlier one that has none itself.
 */
function createsFrom(operations: (Operation | undefined)[], first: number): TaskCreate[] {
  const inputs: TaskCreate[] = []
  const ids = new Set<string | undefined>()
  const parents = new Set<string | undefined>()
  for (const operation of operations.slice(first)) {
    if (operation?.op !== 'create') break
    const input = inputOf(operation)
    const [id, parent] = [input.id, input.parent_id].map(id => id?.toLowerCase())
    if ((id && ids.has(id)) || (parent && !parents.has(parent))) break
    ids.add(id)
    if (!parent) parents.add(id)
    inputs.push(input)
  }
  return inputs
}

/** Why an operation cannot be carried out. Throws what is not about the operation. */
function failureOf(error: unknown, index: number): AppError {
  const failure = findAppError(error) ?? (isOutage(error) && unavailable(error))
  if (!failure || failure.code === 'invalid_token') throw error
  failure.index = index
  if (typeof failure.detail !== 'string') failure.detail = locate(failure.detail, index, 'task')
  return failure
}

/** Problems of one body as those of a part of the batch. What is wrong with a header stays there. */
const locate = (problems: Problem[], ...place: (string | number)[]): Problem[] =>
  problems.map(({ loc: [section, ...rest], ...problem }) => ({
    loc: section === 'body' ? ['body', 'operations', ...place, ...rest] : [section!, ...rest],
    ...problem,
  }))

/** What is wrong with each operation, until it is as much as an error names; from there on only that something is. */
function problemsOfEach(operations: unknown[], isStrict: boolean): Problem[][] {
  let rest = problemsMax
  return operations.map((value, index) => {
    const problems = problemsOf(value, isStrict, Math.max(1, rest))
    rest -= problems.length
    return locate(problems, index)
  })
}

const checkOperation = createCheck(operation)

/** What is wrong with an operation, as if it were the whole body; about `max` problems. */
function problemsOf(value: unknown, isStrict: boolean, max: number): Problem[] {
  const unknown = isStrict ? unknownFields(operation, value, ['body']).take(max) : []
  const problems = [...checkOperation(value, max), ...unknown]
  if (problems.length > 0) return problems
  const read = value as Operation
  const problem = (field: string, type: string, msg: string) => [{ loc: ['body', field], type, msg }]
  if (read.op !== 'create')
    return isUuid(read.id) ? [] : problem('id', 'uuid', 'Input should be the id of a task')
  // Ignored like other unknown fields, it would look like a condition that holds.
  if ('version' in read) return problem('version', 'not_combinable', 'Not with create')
  const { id, task } = read
  const isAmbiguous = id && task.id && id.toLowerCase() !== task.id.toLowerCase()
  return isAmbiguous ? problem('id', 'not_combinable', 'The task has another id') : []
}
