import type { TSchema } from '@sinclair/typebox'
import { t } from 'elysia'
import { AppError, type ErrorCode, type StatusOf, statusOf } from '../lib/errors.ts'
import { mapValues } from '../lib/map-values.ts'
import type { Schema } from './json-schema.ts'
import { integer } from './schema.ts'

const requestIdExample = '019a9c3e-7b1f-7000-9a51-0d5f2f6f8b11'
const requestId = t.String({ examples: [requestIdExample] })

const index = t.Optional(integer({ description: 'Which operation of a batch it is about, from 0.' }))

/** The one shape of an error (see `errors.ts`). */
export const errorBody = t.Object(
  {
    detail: t.String({ description: 'For display.', examples: ['Task not found'] }),
    code: t.String({ description: 'For programs: it never changes.', examples: ['task_not_found'] }),
    request_id: requestId,
    index,
  },
  { title: 'Error' },
)

export const validationFailedBody = t.Object(
  {
    detail: t.Array(
      t.Object(
        {
          loc: t.Array(t.Union([t.String(), integer()]), {
            description: 'Where: `body`, `query`, `path` or `header`, and from there on.',
            examples: [['body', 'title']],
          }),
          msg: t.String({
            description: 'For display.',
            examples: ['String should have at least 1 character'],
          }),
          type: t.String({ description: 'For programs.', examples: ['string_too_short'] }),
        },
        { title: 'Problem' },
      ),
      { description: 'Everything that is wrong with the request, at once.' },
    ),
    code: t.String({ description: 'For programs.', examples: ['validation_failed'] }),
    request_id: requestId,
    index,
    body: t.Optional(
      t.Unknown({ description: 'What was sent, with secrets masked.', examples: [{ title: '' }] }),
    ),
  },
  { title: 'ValidationFailed' },
)

/** Any route may meet these. */
const always = ['internal', 'unavailable'] as const satisfies ErrorCode[]

/** The error responses of these codes, by status. */
type ErrorResponses<Code extends ErrorCode> = {
  [Status in StatusOf<Code>]: Status extends 422 ? typeof validationFailedBody : typeof errorBody
}

/**
 * The errors of a route, for its `response`. A route names only its own: those of a plugin that it is behind (`body()`,
 * `requireUser()`) the plugin declares.
 */
export const errors = <Code extends ErrorCode = never>(...codes: Code[]) =>
  documented<ErrorResponses<Code | (typeof always)[number]>>(() =>
    mapValues(byStatus(codes), (own, status) => ({
      ...(status === '422' ? validationFailedBody : errorBody),
      codes: own,
    })),
  )

/** The codes that a route names, and those that any may meet. */
export const byStatus = (codes: ErrorCode[]) =>
  Object.groupBy([...codes, ...always], statusOf) as Record<string, ErrorCode[]>

type Documented = Record<string, Schema & { codes?: ErrorCode[] }>

/**
 * Responses by status that only the OpenAPI document and typed clients know. They stand under a symbol, where Elysia
 * neither compiles nor checks them: it would, at the first request of each route, for each status.
 */
export const documented = <Responses extends object = object>(responses: () => Documented) =>
  ({ [Symbol('documented')]: responses }) as unknown as Responses

/** All responses of a route. What was declared later of a status adds to what was declared before. */
export function allResponses(response: Record<string | symbol, unknown>): Record<string, Schema> {
  const parts = Object.getOwnPropertySymbols(response).map(key => (response[key] as () => Documented)())
  const all: Documented = {}
  for (const [status, part] of parts.flatMap(Object.entries<Documented[string]>)) {
    const before = all[status]
    all[status] = { ...before, ...part, codes: [...(before?.codes ?? []), ...(part.codes ?? [])] }
  }
  const described = mapValues(all, ({ codes, ...schema }) => ({
    ...describe([...new Set(codes)]),
    ...schema,
  }))
  return { ...described, ...(response as Record<string, Schema>) }
}

/** What the document says of a response with one of these errors. */
export function describe(codes: ErrorCode[]): {
  description: string
  examples?: object[]
  headers?: string[]
} {
  const examples = codes.map(name => {
    const { code, message } = new AppError(name)
    return { detail: message, code, request_id: requestIdExample }
  })
  const description = examples.map(({ detail }) => detail).join(', or: ')
  // The body of a 422 has examples of its own.
  if (codes.some(code => statusOf(code) === 422)) return { description }
  const headers = codes.includes('insufficient_scope') && { headers: ['WWW-Authenticate'] }
  return { description, examples, ...headers }
}

/** A 412 that shows the resource, in the place of that of `errors`. */
export const conflict = <Resource extends TSchema>(resource: Resource) =>
  documented<{ 412: ReturnType<typeof conflictBody<Resource>> }>(() => ({ 412: conflictBody(resource) }))

export const conflictBody = <Resource extends TSchema>(resource: Resource) =>
  t.Object(
    { ...errorBody.properties, current: t.Optional({ ...resource, description: 'As it is now.' }) },
    { title: `${resource.title}Conflict` },
  )
