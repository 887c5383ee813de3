import { brokenConstraint, databaseError } from '../../db/pg-error.ts'
import { AppError, type ErrorCode, type ErrorDetails } from '../../lib/errors.ts'

/** The constraints on what list and parent a task may have (table.ts), each with its error and its field. */
const refusals: Record<string, [code: ErrorCode, field: 'list_id' | 'parent_id']> = {
  tasks_list_fk: ['list_not_found_in_body', 'list_id'],
  tasks_parent_found: ['parent_not_found', 'parent_id'],
  tasks_parent_nested: ['parent_nested', 'parent_id'],
  tasks_children_count: ['too_many_children', 'parent_id'],
}

/**
 * For `catch`: throws the 422 for a list or a parent that the database has refused, anything else as it is. Another
 * user's is answered as one that does not exist, because the database looks among the user's own.
 */
export function throwMisplaced(
  error: unknown,
  loc: (string | number)[] = ['body'],
  details: ErrorDetails = {},
): never {
  const refusal = refusals[brokenConstraint(error) ?? '']
  if (!refusal) throw error
  const [code, field] = refusal
  const { code: type, message: msg } = new AppError(code)
  throw new AppError(code, { ...details, detail: [{ loc: [...loc, field], msg, type }] })
}

/** Throws the same for the operation of a batch, which the database names by the id of its task or of its list. */
export function throwMisplacedIn(operations: { id: string; patch: object }[], error: unknown): never {
  const about = databaseError(error)?.detail ?? ''
  const index = operations.findIndex(
    ({ id, patch }) => about.includes(id) || ('list_id' in patch && about.includes(`${patch.list_id}`)),
  )
  throwMisplaced(error, ['body', 'operations', index, 'task'], { index })
}
