import { TransformDecodeCheckError } from '@sinclair/typebox/value'
import { Elysia, NotFoundError, ValidationError } from 'elysia'
import { brokenConstraint, isOutage, unavailable } from '../db/pg-error.ts'
import { constraintErrors } from '../db/tables.ts'
import { AppError, findAppError } from '../lib/errors.ts'
import { errorFields, type Log } from '../telemetry/log.ts'
import { maskSecrets } from './mask-secrets.ts'
import { checked, findProblems } from './problems.ts'
import { requestContext } from './request-log.ts'
import { allowedMethods, type Routes, schemasOf } from './route-table.ts'
import { UnknownNamesError, unknownNames } from './unknown-names.ts'

/** The request that failed, as far as Elysia has read it. */
interface FailedRequest {
  request: Request
  path: string
  route?: string
  params?: unknown
  query?: unknown
  headers?: unknown
  /** The body as it was sent, set by `http/body.ts`: Elysia may have removed fields from its own. */
  rawBody?: unknown
}

/** What a route says of a failure beside the common shape; a hook of the route puts it into the context. */
export type FailureFields = ((failure: AppError) => object) | undefined

/** The one place where an error becomes a response. `routes` returns the app's routes, which are complete by then. */
export const errorHandler = (log: Log, routes: () => Routes) =>
  new Elysia({ name: 'error-handler' })
    .use(requestContext)
    .decorate({ rawBody: undefined as unknown, failureFields: undefined as FailureFields })
    // Switches Elysia's parser off (`http/body.ts` says why): any value but `undefined` counts as a parsed body.
    .onParse({ as: 'global' }, () => null)
    // Destructured here and nowhere later: Elysia reads this list and prepares only what it names. For a hook that
    // passes the whole context on, it would parse cookies and more at every request.
    .onError(
      { as: 'global' },
      ({ error, set, requestId, request, path, route, params, query, headers, rawBody, failureFields }) => {
        const failure = toAppError(error, { request, path, route, params, query, headers, rawBody }, routes())
        if (failure.status >= 500) report(log, failure, requestId)
        set.status = failure.status
        Object.assign(set.headers, failure.headers, { 'content-type': 'application/json' })
        return { ...errorFieldsOf(failure, requestId), ...failureFields?.(failure) }
      },
    )

/** The body of an error response (`errorBody` in error-responses.ts); what is undefined is not sent. */
export const errorFieldsOf = ({ detail, code, index, body, current }: AppError, requestId: string) => ({
  detail,
  code,
  request_id: requestId,
  index,
  body,
  current,
})

/**
 * Decides by the class of what was thrown, never by its `code` or `status`: Elysia reads those from any object, so a
 * database error or a stray `{ status: 200 }` would choose the response.
 */
function toAppError(error: unknown, failed: FailedRequest, routes: Routes): AppError {
  // `/tasks/:id` also matches `/tasks/stats` with a method that only the former has.
  if (error instanceof NotFoundError || failed.route?.includes(':')) {
    const allowed = allowedMethods(routes, failed.path)
    const headers = { allow: [...allowed].sort().join(', ') }
    if (allowed.size > 0 && !allowed.has(failed.request.method))
      return new AppError('method_not_allowed', { headers })
  }
  const expected = findAppError(error)
  if (expected) return withBody(expected, failed, routes)
  if (error instanceof ValidationError) {
    // A response that breaks its own schema: our fault, not the client's.
    if (error.type === 'response') return new AppError('internal', { cause: error })
    return validationFailure(error.type, failed, routes)
  }
  // Elysia decodes lists only in a query.
  if (error instanceof TransformDecodeCheckError || error instanceof UnknownNamesError)
    return validationFailure('query', failed, routes)
  if (error instanceof NotFoundError) return new AppError('not_found')
  if (isOutage(error)) return unavailable(error)
  const constraint = brokenConstraint(error)
  if (constraint !== undefined)
    return new AppError(constraintErrors[constraint] ?? 'conflict', { cause: error })
  return new AppError('internal', { cause: error })
}

function report(log: Log, failure: AppError, requestId: string) {
  const { cause } = failure
  if (failure.status === 500) {
    // The validator's message would repeat the user's data.
    const fields =
      cause instanceof ValidationError ? { error: 'ResponseMismatch' } : errorFields(cause ?? failure)
    log.error('request failed', { request_id: requestId, ...fields })
  } else {
    // Without a cause the reason says it all.
    log.warn('request refused', {
      request_id: requestId,
      reason: failure.code,
      ...(cause !== undefined && errorFields(cause)),
    })
  }
}

function validationFailure(part: string, failed: FailedRequest, routes: Routes): AppError {
  const error = new AppError('validation_failed', { detail: problemsOf(part, failed, routes) })
  return withBody(error, failed, routes)
}

/** A 422 repeats the body that was sent, `null` when there was none or it could not be parsed. */
function withBody(error: AppError, { rawBody = null }: FailedRequest, routes: Routes): AppError {
  if (error.status !== 422) return error
  // A problem may name a field that only the client knows.
  error.detail = maskSecrets(error.detail, routes) as AppError['detail']
  error.body = maskSecrets(rawBody, routes)
  return error
}

/** Everything that is wrong: Elysia stops at the first invalid part of a request. */
function problemsOf(part: string, failed: FailedRequest, routes: Routes) {
  const schemas = schemasOf(routes, failed.request, failed.route)
  const { params, query, headers } = schemas
  const body = schemas.body && checked(schemas.body)
  const problems = [
    ...findProblems({
      path: { schema: params, value: failed.params },
      query: { schema: query, value: failed.query },
      header: { schema: headers, value: failed.headers },
      // As the route's `transform` has it, if it has one: it changes what is checked, not what was sent.
      body: { schema: body, value: body?.readBody?.(failed.rawBody) ?? failed.rawBody ?? undefined },
    }),
    ...unknownNames({ query, body }, failed.request, failed.rawBody),
  ]
  if (problems.length > 0) return problems
  const section = { params: 'path', headers: 'header' }[part] ?? part
  return [{ loc: [section], msg: 'Input should be valid', type: 'value_error' }]
}
