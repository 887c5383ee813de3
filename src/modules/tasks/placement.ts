import { brokenConstraint } from '../../db/pg-error.ts'
import { AppError, type ErrorCode, type Problem } from '../../lib/errors.ts'

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

/**
 * For `catch`: throws the 422 for a list or a parent that the database has refused, anything else as it is. Without `loc`, it
 * is about the field of the body.
 */
export function throwMisplaced(error: unknown, loc?: Problem['loc']): never {
  const broken: Misplaced | undefined = constraints[brokenConstraint(error) as keyof typeof constraints]
  if (!broken) throw error
  const [code, field] = broken
  const { code: type, message: msg } = new AppError(code)
  throw new AppError(code, { detail: [{ loc: loc ?? ['body', field], msg, type }] })
}
