import type { Db } from '../../db/drizzle.ts'
import { type Versions, writeInTurn } from '../../db/versions.ts'
import { problemsMax } from '../../http/problems.ts'
import { AppError, findAppError, type Problem } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import { findDeleted, findForeign, findLists, findParents, findTasks, write } from './batch-statements.ts'
import { trashTasks } from './families.ts'
import { type Outcome, type Refusal, readOperations, roundsOf, type Step } from './operations.ts'
import { listNotFound, throwMisplacedIn } from './placement.ts'

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
   * out, `task_not_found`, `not_authorized`, `precondition_failed`, `id_used`, or why a task cannot have that list or
   * parent. Otherwise these are outcomes, and so is `unavailable` for operations that the time did not suffice for.
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

    const carryOutAll = (steps: Step[]) =>
      writeInTurn(db, userId, async (tx, versions) => {
        const outcomes: Outcome[] = []
        let firstFailed = Number.POSITIVE_INFINITY
        for (const round of roundsOf(steps, await findParents(tx, userId, steps))) {
          const isLate = !isAtomic && outcomes.length > 0 && now() > until
          // What comes after a failure is rolled back with it; what comes before it may have failed first.
          const wanted = isAtomic ? round.filter(({ index }) => index < firstFailed) : round
          const carriedOut = isLate
            ? wanted.map(unavailable)
            : await carryOut(tx, userId, versions, wanted, isAtomic)
          outcomes.push(...carriedOut)
          firstFailed = Math.min(...outcomes.filter(isRefusal).map(({ index }) => index))
        }
        const failed = outcomes.filter(isRefusal).find(({ index }) => index === firstFailed)
        if (isAtomic && failed) throw failed.failure
        return outcomes
      })

    let steps = read.filter(isStep)
    while (true) {
      try {
        return [...refused, ...(await carryOutAll(steps))].sort((a, b) => a.index - b.index)
      } catch (error) {
        const step = isAtomic ? undefined : steps.find(({ index }) => index === findAppError(error)?.index)
        if (!step) throw error
        if (now() > until) throw new AppError('unavailable')
        // The database refuses its parent, and has rolled everything back: once more, without this one.
        refused.push(refuse(step, findAppError(error)!))
        steps = steps.filter(other => other !== step)
      }
    }
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

/** Carries out the steps of a round that can be. Throws, with the `index` of its step, for a parent that the database refuses. */
async function carryOut(tx: Db, userId: UserId, versions: Versions, round: Step[], isAtomic: boolean) {
  const { found, ...failures } = await findFailures(tx, userId, round)
  const firstFailed = round.findIndex(step => failures.of(step))
  const steps = isAtomic && firstFailed >= 0 ? round.slice(0, firstFailed + 1) : round
  const changes = steps
    .filter(step => !failures.of(step) && (found.get(step.id)?.differs ?? true))
    .map(step => ({ ...step, version: ++versions.lastVersion }))
  const written = await write(tx, userId, changes).catch(error => throwMisplacedIn(changes, error))
  const deleted = changes.filter(({ op }) => op === 'delete').map(({ id }) => id)
  if (deleted.length > 0) await trashTasks(tx, versions, userId, deleted)

  return steps.map((step): Outcome => {
    const { index, op, id } = step
    const failure = failures.of(step)
    if (failure) return refuse(step, failure)
    return { index, op, id, json: op === 'delete' ? null : (written.get(id) ?? found.get(id)!.json) }
  })
}

/** The tasks that the steps name, and why a step cannot be carried out. */
async function findFailures(tx: Db, userId: UserId, steps: Step[]) {
  const found = await findTasks(tx, userId, steps)
  const absent = steps.filter(({ id }) => !found.has(id))
  const deleted = await findDeleted(tx, userId, absent)
  const foreign = await findForeign(tx, userId, absent)
  const lists = await findLists(tx, userId, steps)

  function failureOf(step: Step): AppError | undefined {
    const { index, op, id, version, listId } = step
    const task = found.get(id)
    if (op === 'create') {
      if (task?.isTrashed || deleted.has(id)) return new AppError('id_used', { index })
      if (task) return undefined
    } else {
      if (!task || task.isTrashed)
        return new AppError(foreign.has(id) ? 'not_authorized' : 'task_not_found', { index })
      if (version !== undefined && version !== task.version)
        return new AppError('precondition_failed', { index, current: JSON.parse(task.json) })
    }
    return listId && !lists.has(listId) ? listNotFound(index) : undefined
  }
  const failures = new Map(steps.map(step => [step, failureOf(step)]))
  return { found, of: (step: Step) => failures.get(step) }
}
