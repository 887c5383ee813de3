import type { Db } from '../../db/drizzle.ts'
import { taskTombstones } from '../../db/tables.ts'
import { type Versions, writeInTurn } from '../../db/versions.ts'
import { AppError, type Problem } from '../../lib/errors.ts'
import type { UserId } from '../../lib/user-id.ts'
import { type Found, findParents, findTasks, write } from './batch-statements.ts'
import { trashTasks } from './families.ts'
import { type Outcome, type Refusal, readOperations, roundsOf, type Step } from './operations.ts'
import { foreignIds, ownIds } from './owned.ts'
import { findPlaces } from './placement.ts'

/** How a batch is carried out. */
interface BatchOptions {
  /** All or nothing, if not said; otherwise each operation for itself. */
  isAtomic?: boolean
  /** Whether unknown fields are refused. */
  isStrict?: boolean
}

/** Each round costs a few statements, for which the embedded database keeps other requests waiting. */
const roundsMax = 10
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
   * parent. Otherwise these are outcomes, and so is `unavailable` for operations that time or rounds did not suffice for.
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

    const steps = read.filter(isStep)
    const outcomes = await writeInTurn(db, userId, async (tx, versions) => {
      const outcomes: Outcome[] = []
      /** The refusal that rolls everything back, so far. */
      const decisive = () => (isAtomic ? outcomes.filter(isRefusal).sort(byIndex)[0] : undefined)
      const rounds = roundsOf(steps, await findParents(tx, userId, steps))
      if (isAtomic && rounds.length > roundsMax) throw tooDeep(rounds[roundsMax]![0]!)
      for (const [i, round] of rounds.entries()) {
        const isLate = !isAtomic && (i >= roundsMax || (i > 0 && now() > until))
        // What comes after a failure is rolled back with it; what comes before it may have failed first.
        const refusal = decisive()
        const wanted = refusal ? round.filter(({ index }) => index < refusal.index) : round
        outcomes.push(...(isLate ? wanted.map(unavailable) : await carryOut(tx, userId, versions, wanted)))
      }
      const refusal = decisive()
      if (refusal) throw refusal.failure
      return outcomes
    })
    return [...refused, ...outcomes].sort(byIndex)
  }
}

const allProblems = (refused: Refusal[]) =>
  new AppError('validation_failed', {
    detail: refused.flatMap(({ failure }) => failure.detail as Problem[]),
  })

function tooDeep({ index }: Step): AppError {
  const msg = `At most ${roundsMax} operations may follow from each other`
  const problem = { loc: ['body', 'operations', index, 'id'], msg, type: 'too_many' }
  return new AppError('validation_failed', { detail: [problem], index })
}

const isStep = (read: Step | Refusal): read is Step => !('failure' in read)
const isRefusal = (read: Step | Refusal | Outcome): read is Refusal => 'failure' in read

const byIndex = (a: { index: number }, b: { index: number }) => a.index - b.index

const refuse = ({ index, op, id }: Step, failure: AppError): Refusal => ({ index, op, id, failure })
const unavailable = (step: Step) => refuse(step, new AppError('unavailable', { index: step.index }))

/** Carries out the steps of a round that can be. */
async function carryOut(tx: Db, userId: UserId, versions: Versions, steps: Step[]): Promise<Outcome[]> {
  const found = await findTasks(tx, userId, steps)
  const absent = steps.filter(({ id }) => !found.has(id))
  const created = absent.filter(({ hasOwnId }) => hasOwnId).map(({ id }) => id)
  const deleted = await ownIds(tx, taskTombstones, userId, created)
  const changed = absent.filter(({ op }) => op !== 'create').map(({ id }) => id)
  const foreign = await foreignIds(tx, 'task', userId, changed)
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
