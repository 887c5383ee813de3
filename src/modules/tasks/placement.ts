import { databaseError } from '../../db/pg-error.ts'
import { AppError, type ErrorCode, type ErrorDetails } from '../../lib/errors.ts'

/** The errors of a list or a parent that a task cannot have. */
export const misplacedCodes = [
  'list_not_found_in_body',
  'parent_not_found',
  'parent_nested',
  'too_many_children',
] as const

type Refusal = readonly [code: ErrorCode, field: 'list_id' | 'parent_id']

/** The constraints on what list and parent a task may have (table.ts), each with its error and its field. */
const refusals = {
  tasks_list_fk: ['list_not_found_in_body', 'list_id'],
  tasks_parent_found: ['parent_not_found', 'parent_id'],
  tasks_parent_nested: ['parent_nested', 'parent_id'],
  tasks_children_count: ['too_many_children', 'parent_id'],
} as const satisfies Record<string, Refusal>

const isKnown = (constraint: string): constraint is keyof typeof refusals =>
  Object.hasOwn(refusals, constraint)

/**
 * For `catch`: throws the 422 for a list or a parent that the database has refused, anything else as it is. Another
 * user's is answered as one that does not exist, because the database looks among the user's own.
 */
export function throwMisplaced(
  error: unknown,
  loc: (string | number)[] = ['body'],
  details: ErrorDetails = {},
): never {
  const failure = databaseError(error)
  const constraint = failure?.constraint_name ?? failure?.constraint ?? ''
  if (!isKnown(constraint)) throw error
  throw misplaced(refusals[constraint], loc, details)
}

function misplaced([code, field]: Refusal, loc: (string | number)[], details: ErrorDetails): AppError {
  const { code: type, message: msg } = new AppError(code)
  return new AppError(code, { ...details, detail: [{ loc: [...loc, field], msg, type }] })
}

/** The operation of a batch names a list that the user does not have. */
export const listNotFound = (index: number) =>
  misplaced(refusals.tasks_list_fk, ['body', 'operations', index, 'task'], { index })

/** Throws the same for the operation of a batch whose parent the database has refused; it names the task. */
export function throwMisplacedIn(steps: { index: number; id: string }[], error: unknown): never {
  const about = databaseError(error)?.detail
  const step = steps.find(({ id }) => id === about)
  if (!step) throw error
  throwMisplaced(error, ['body', 'operations', step.index, 'task'], { index: step.index })
}
