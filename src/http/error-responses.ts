import type { TSchema } from '@sinclair/typebox'
import { t } from 'elysia'
import { AppError, type ErrorCode, type StatusOf, statusOf } from '../lib/errors.ts'
import { mapValues } from '../lib/map-values.ts'
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

export const validationErrorBody = t.Object(
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
  { title: 'ValidationError' },
)

/** Any route may meet these. */
const always = ['internal', 'unavailable'] as const satisfies ErrorCode[]

/** The error responses of these codes, by status. */
type ErrorResponses<Code extends ErrorCode> = {
  [Status in StatusOf<Code>]: Status extends 422 ? typeof validationErrorBody : typeof errorBody
}

/**
 * The errors of a route, for its `response`. A route names only its own: those of a plugin that it is behind (`body()`,
 * `requireUser()`) the plugin declares. Elysia strips and checks only responses whose status is declared. What the errors
 * say is in the OpenAPI document alone, and added to it when that is made (`describeErrors`).
 */
export function errors<Code extends ErrorCode = never>(
  ...codes: Code[]
): ErrorResponses<Code | (typeof always)[number]> {
  const all = [...codes, ...always]
  const bodies = all.map(code => [statusOf(code), isInvalid(code) ? validationErrorBody : errorBody])
  return { ...Object.fromEntries(bodies), [Symbol('codes')]: all }
}

const isInvalid = (code: ErrorCode) => statusOf(code) === 422

/**
 * What the document says of the errors that a route and its plugins have named, by status. Of two with one status Elysia keeps
 * the plugin's; the codes are under a symbol for each `errors()`, so all of them are there.
 */
export function describeErrors(response: { [errors: symbol]: ErrorCode[] }) {
  const codes = Object.getOwnPropertySymbols(response).flatMap(key => response[key]!)
  const byStatus = Object.groupBy(new Set(codes), statusOf)
  return mapValues(byStatus as Record<string, ErrorCode[]>, describe)
}

function describe(codes: ErrorCode[]): { description: string; examples?: object[]; headers?: string[] } {
  const examples = codes.map(name => {
    const { code, message } = new AppError(name)
    return { detail: message, code, request_id: requestIdExample }
  })
  const description = examples.map(({ detail }) => detail).join(', or: ')
  // The body of a 422 has examples of its own.
  if (codes.some(isInvalid)) return { description }
  const headers = codes.includes('insufficient_scope') && { headers: ['WWW-Authenticate'] }
  return { description, examples, ...headers }
}

/** An error that may be a 412 about such a resource: in the place of the 412 of `errors`. */
export const conflictBody = <Resource extends TSchema>(resource: Resource) =>
  t.Object(
    { ...errorBody.properties, current: t.Optional({ ...resource, description: 'As it is now.' }) },
    { title: `${resource.title}Conflict` },
  )
