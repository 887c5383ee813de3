import type { TSchema } from '@sinclair/typebox'
import { TransformDecodeCheckError, TransformDecodeError } from '@sinclair/typebox/value'
import { type AnyElysia, Elysia, NotFoundError, ParseError, ValidationError } from 'elysia'
import { brokenConstraint, isSchemaMissing } from '../db/pg-error.ts'
import { AppError, findAppError } from '../lib/errors.ts'
import { errorFields, type Log } from '../telemetry/log.ts'
import { findProblems, type Sections } from './problems.ts'

// Elysia knows this failure by the name of its class, which a minified program has lost: then a query that is wrong
// would reach the handlers as it is.
Object.defineProperty(TransformDecodeError, 'name', { value: 'TransformDecodeError' })

interface Failed {
  request: Request
  path: string
  route?: string
  params?: unknown
  query?: unknown
  headers?: unknown
  /** The body as it came, set by `http/body.ts`: Elysia's may have lost fields by now. */
  rawBody?: unknown
}

type Routes = AnyElysia['routes']

/** What a route says of a failure beside the common shape; a hook of the route puts it into the context. */
export type FailureFields = ((failure: AppError) => object) | undefined

/** The one place where a failure becomes a response. `routes` is asked for the app's routes when something fails. */
export const errorHandler = (log: Log, routes: () => Routes) =>
  new Elysia({ name: 'error-handler' })
    .decorate({ requestId: '', rawBody: undefined as unknown, failureFields: undefined as FailureFields })
    // Elysia's own parser would fail, or need a second, before the caller is authenticated: see `http/body.ts`.
    // Whatever is not `undefined` tells Elysia that the body has been dealt with.
    .onParse({ as: 'global' }, () => null)
    // Destructured here and nowhere later: Elysia reads this list, and prepares for every request what stands in it;
    // of a hook that hands the whole context on it believes that it needs cookies and all.
    .onError(
      { as: 'global' },
      ({ error, set, requestId, request, path, route, params, query, headers, rawBody, failureFields }) => {
        const failure = toAppError(error, { request, path, route, params, query, headers, rawBody }, routes())
        if (failure.status >= 500) report(log, failure, requestId)
        set.status = failure.status
        Object.assign(set.headers, failure.headers, { 'content-type': 'application/json' })
        return {
          detail: failure.detail,
          code: failure.code,
          request_id: requestId,
          ...(failure.index !== undefined && { index: failure.index }),
          ...(failure.body !== undefined && { body: failure.body }),
          ...failureFields?.(failure),
        }
      },
    )

/**
 * Decides by what was thrown, never by its `code` or `status`: Elysia reads those off any object, so that a database
 * error or a stray `{ status: 200 }` would choose the answer.
 */
function toAppError(error: unknown, failed: Failed, routes: Routes): AppError {
  const expected = findAppError(error)
  // `/tasks/:id` takes `/tasks/stats` for a task, whatever the method, and finds none.
  if (failed.route?.includes(':')) {
    const allowed = allowedMethods(failed.path, routes)
    if (!allowed.has(failed.request.method)) return methodNotAllowed(allowed)
  }
  if (expected) return withBody(expected, failed, routes)
  if (error instanceof ValidationError) {
    // An answer of ours that breaks its own schema arrives here as well: that is our mistake, not the client's.
    if (error.type === 'response') return new AppError('internal', { cause: error })
    return invalid(error.type, failed, routes)
  }
  // The only lists that Elysia decodes are those in a query.
  if (error instanceof TransformDecodeCheckError) return invalid('query', failed, routes)
  if (error instanceof NotFoundError) return notFound(failed, routes)
  if (error instanceof ParseError) return new AppError('bad_request', { cause: error })
  if (isSchemaMissing(error)) return new AppError('unavailable', { cause: error })
  if (brokenConstraint(error) !== undefined) return new AppError('conflict', { cause: error })
  return new AppError('internal', { cause: error })
}

function report(log: Log, failure: AppError, requestId: string) {
  const { cause } = failure
  // A response that breaks its schema: the validator's text would repeat the user's data.
  const fields =
    cause instanceof ValidationError ? { error: 'ResponseMismatch' } : errorFields(cause ?? failure)
  if (failure.status === 500) log.error('request failed', { request_id: requestId, ...fields })
  else log.warn('request refused', { request_id: requestId, reason: failure.code, ...fields })
}

function invalid(part: string, failed: Failed, routes: Routes): AppError {
  const error = new AppError('validation_failed', { detail: problemsOf(part, failed, routes) })
  return withBody(error, failed, routes)
}

/** A 422 repeats what was sent, `null` when there was nothing that could be read. */
function withBody(error: AppError, { rawBody = null }: Failed, routes: Routes): AppError {
  if (error.code !== 'validation_failed') return error
  const body = maskSecrets(rawBody, secretNames(routes))
  return new AppError(error.code, { detail: error.detail as never, body })
}

/** Elysia stops at the first part of a request that is wrong; the client wants to hear of all of them. */
function problemsOf(part: string, failed: Failed, routes: Routes) {
  const route = routes.find(
    ({ method, path }) => path === failed.route && (method === failed.request.method || method === 'ALL'),
  )
  const schemas = (route?.hooks ?? {}) as Partial<Record<'params' | 'query' | 'headers' | 'body', TSchema>>
  const sections: Sections = {
    ...(schemas.params && { path: { schema: schemas.params, value: failed.params } }),
    ...(schemas.query && { query: { schema: schemas.query, value: failed.query } }),
    ...(schemas.headers && { header: { schema: schemas.headers, value: failed.headers } }),
    ...(schemas.body && { body: { schema: schemas.body, value: failed.rawBody ?? undefined } }),
  }
  const problems = findProblems(sections)
  if (problems.length > 0) return problems
  const section = { params: 'path', headers: 'header' }[part] ?? part
  return [{ loc: [section], msg: 'Input should be valid', type: 'value_error' }]
}

function notFound({ path, request }: Failed, routes: Routes): AppError {
  const allowed = allowedMethods(path, routes)
  return allowed.size === 0 || allowed.has(request.method)
    ? new AppError('not_found')
    : methodNotAllowed(allowed)
}

const methodNotAllowed = (allowed: Set<string>) =>
  new AppError('method_not_allowed', { headers: { allow: [...allowed].sort().join(', ') } })

/** What can be done with an address. Routes that name it come before those that take anything in a place. */
function allowedMethods(path: string, routes: Routes): Set<string> {
  const matching = routes.filter(route => route.path !== '/*' && matches(route.path, path))
  const named = matching.filter(route => !route.path.includes(':'))
  const allowed = new Set((named.length > 0 ? named : matching).map(route => route.method))
  if (allowed.has('GET')) allowed.add('HEAD')
  allowed.delete('OPTIONS')
  return allowed
}

/** Whether an address fits a route's pattern (`/tasks/:id`), with or without a slash at the end. */
function matches(pattern: string, path: string): boolean {
  const parts = (text: string) => text.replace(/\/$/, '').split('/')
  const wanted = parts(pattern)
  const given = parts(path)
  return (
    wanted.length === given.length &&
    wanted.every((part, i) => (part.startsWith(':') ? given[i] !== '' : part === given[i]))
  )
}

/** What was sent, with every secret replaced, at any depth. */
function maskSecrets(value: unknown, secrets: ReadonlySet<string>): unknown {
  if (Array.isArray(value)) return value.map(item => maskSecrets(item, secrets))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => [
      name,
      secrets.has(name) ? '********' : maskSecrets(item, secrets),
    ]),
  )
}

const namesOf = new WeakMap<Routes, ReadonlySet<string>>()

/**
 * The names of all fields that some route's schema declares as `format: 'password'`. By name and for all routes
 * together, so that a password is masked even where it does not belong.
 */
function secretNames(routes: Routes): ReadonlySet<string> {
  const known = namesOf.get(routes)
  if (known) return known
  const names = new Set<string>()
  for (const { hooks } of routes) collectSecrets(hooks?.body, undefined, names)
  namesOf.set(routes, names)
  return names
}

/** Walks a schema, whatever it is made of, with the name of the field that it stands under. */
function collectSecrets(schema: unknown, name: string | undefined, names: Set<string>): void {
  if (typeof schema !== 'object' || schema === null) return
  const { format, properties = {}, ...rest } = schema as { format?: unknown; properties?: object }
  if (format === 'password' && name !== undefined) names.add(name)
  for (const [property, part] of Object.entries(properties)) collectSecrets(part, property, names)
  for (const part of Object.values(rest)) collectSecrets(part, name, names)
}
