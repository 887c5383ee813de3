/** Every error of the API: code -> status, text and, if it is another one, the code that is sent. The texts of the FastAPI service are kept to the letter. */
const failures = {
  bad_request: [400, 'Bad Request'],
  incorrect_password: [400, 'Incorrect password'],
  email_taken: [400, 'Email already registered'],
  incorrect_login: [401, 'Incorrect email or password'],
  not_authenticated: [401, 'Not authenticated'],
  invalid_token: [401, 'Could not validate credentials'],
  not_authorized: [403, 'Not authorized'],
  origin_not_allowed: [403, 'Origin not allowed'],
  registration_closed: [403, 'Registration is closed'],
  insufficient_scope: [403, 'The token lacks the scope for this'],
  not_found: [404, 'Not Found'],
  task_not_found: [404, 'Task not found'],
  list_not_found: [404, 'List not found'],
  session_not_found: [404, 'Session not found'],
  token_not_found: [404, 'Token not found'],
  method_not_allowed: [405, 'Method Not Allowed'],
  conflict: [409, 'Database integrity constraint violated'],
  id_used: [409, 'This id was used for what is in the trash, or was deleted for good'],
  too_many_tokens: [409, 'There can be no more than 50 API tokens'],
  idempotency_key_used: [409, 'What this Idempotency-Key created is in the trash, or was deleted for good'],
  too_many_lists: [409, 'There are 500 lists already'],
  cursor_expired: [410, 'Cursor is too old: start again without one'],
  precondition_failed: [412, 'The task has changed since'],
  /** The same of a list. */
  list_changed: [412, 'The list has changed since', 'precondition_failed'],
  body_too_large: [413, 'Request body too large'],
  unsupported_media_type: [415, 'Send JSON with the header Content-Type: application/json'],
  /** The same where a form is accepted, too. */
  neither_form_nor_json: [
    415,
    'Send a form or JSON with the header Content-Type: application/x-www-form-urlencoded or application/json',
    'unsupported_media_type',
  ],
  idempotency_key_reused: [422, 'This Idempotency-Key was sent before, with another body'],
  validation_failed: [422, 'Validation failed'],
  /** In a body, where the client calls it as in a path. */
  list_not_found_in_body: [422, 'List not found', 'list_not_found'],
  parent_not_found: [422, 'Parent not found'],
  parent_nested: [422, 'A parent must not have a parent itself'],
  too_many_children: [422, 'A task has at most 200 children'],
  too_many_requests: [429, 'Too many requests'],
  internal: [500, 'Internal server error'],
  not_ready: [503, 'Not ready'],
  unavailable: [503, 'Service temporarily unavailable'],
} as const

export type ErrorCode = keyof typeof failures
type Failure = readonly [status: number, text: string, code?: ErrorCode]

/** One problem of a request; `loc` starts with body, query, path or header. */
export interface Problem {
  loc: (string | number)[]
  msg: string
  type: string
}

/** An error names at most this many problems. */
export const problemsMax = 100

/** What an error response carries beside its code. */
interface ErrorDetails {
  /** Replaces the code's text: the problems of a 422, or a reason. */
  detail?: string | Problem[]
  /** The operation of a batch that failed, from 0. */
  index?: number | undefined
  /** With a 412: the resource as it is now. */
  current?: unknown
  headers?: Record<string, string>
  cause?: unknown
}

/** An expected error: thrown anywhere, turned into a response in one place (`http/error-handler.ts`). */
export class AppError extends Error {
  override readonly name = 'AppError'
  readonly code: ErrorCode
  readonly status: number
  detail: string | Problem[]
  /** Of a 422: the body that was sent, with secrets masked. The error handler sets it. */
  body: unknown
  index: number | undefined
  current: unknown
  readonly headers: Record<string, string>

  constructor(failure: ErrorCode, { detail, index, current, headers, cause }: ErrorDetails = {}) {
    const [status, text, code = failure]: Failure = failures[failure]
    super(text, { cause })
    this.code = code
    this.status = status
    this.detail = Array.isArray(detail) ? detail.slice(0, problemsMax) : (detail ?? text)
    this.index = index
    this.current = current
    this.headers = { ...defaultHeaders[status], ...headers }
  }
}

/** The 422 of one problem. */
export const invalid = (problem: Problem) => new AppError('validation_failed', { detail: [problem] })

/** Headers that RFC 9110 requires or recommends for a status; `Retry-After` in seconds. */
const defaultHeaders: Record<number, Record<string, string>> = {
  401: { 'www-authenticate': 'Bearer' },
  503: { 'retry-after': '2' },
}

export type StatusOf<Code extends ErrorCode> = (typeof failures)[Code][0]

export const statusOf = <Code extends ErrorCode>(code: Code): StatusOf<Code> => failures[code][0]

/** The expected error in a chain of causes: a library may have wrapped it. */
export function findAppError(error: unknown): AppError | undefined {
  for (let e = error; e instanceof Error; e = e.cause) if (e instanceof AppError) return e
  return undefined
}
