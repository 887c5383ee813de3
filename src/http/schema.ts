import {
  FormatRegistry,
  Kind,
  type Static,
  type TSchema,
  type TString,
  type TUnsafe,
  Type,
  TypeRegistry,
} from '@sinclair/typebox'
import { type Context, t } from 'elysia'
import { type ErrorCode, type StatusOf, statusOf, textOf } from '../lib/errors.ts'
import { parseInstant } from '../lib/instant.ts'
import { mapValues } from '../lib/map-values.ts'
import { isOwnId } from '../lib/uuid.ts'

/** The schema types of the API that TypeBox lacks or has in another form than JSON Schema, and the shapes of errors. */

interface TextOptions {
  minLength?: number
  maxLength?: number
  /** Refuses strings of white space only. */
  notBlank?: boolean
  /** The maximum length in bytes of UTF-8 instead of code points. */
  maxBytes?: number
  pattern?: RegExp
  /** The pattern in words: "String should be …". */
  wanted?: string
  /** `date-time`: an instant that exists (`instant.ts`); `uuid`: an id that a client may choose (`uuid.ts`). */
  format?: string
  /** Of an instant: in the future, and at most a year ahead. */
  withinYear?: true
  /** What else can be wrong. */
  problem?: (value: string) => { type: string; msg: string } | undefined
  [annotation: string]: unknown
}

/**
 * A string whose length counts Unicode code points, like JSON Schema and PostgreSQL (TypeBox counts UTF-16 units). It
 * refuses NUL and lone surrogates, which PostgreSQL cannot store.
 */
export function text(options: TextOptions = {}): TString {
  const { notBlank, maxBytes, pattern, wanted: _, withinYear: __, problem: ___, ...shown } = options
  return Type.Unsafe<string>({
    ...shown,
    [Kind]: 'Text',
    [Rules]: options,
    type: 'string',
    ...(pattern && isPortable(pattern) && { pattern: pattern.source }),
    ...(notBlank && { pattern: '\\S' }),
    // Not the whole truth (bytes, not characters): the description has the rest.
    ...(maxBytes && { maxLength: maxBytes }),
  }) as unknown as TString
}

/** What is checked of a text. Beside it, its schema is what JSON Schema can say of that. */
const Rules = Symbol('Rules')

/** Generators copy a pattern into languages that know no lookahead, and no `\\p` without a flag: then the server alone checks it. */
const isPortable = ({ source }: RegExp) => !/\(\?|\\p/i.test(source)

/** The problem of a string, `undefined` if it is valid. */
export function textProblem(schema: object, value: unknown): { type: string; msg: string } | undefined {
  if (typeof value !== 'string') return { type: 'string_type', msg: 'Input should be a valid string' }
  if (value.includes('\0') || !value.isWellFormed()) {
    return { type: 'string_unicode', msg: 'String must not hold NUL or lone surrogates' }
  }
  const rules = (schema as { [Rules]: TextOptions })[Rules]
  const { minLength = 0, maxLength = Number.POSITIVE_INFINITY, maxBytes, pattern, format } = rules
  if (value.length < minLength || (minLength > 1 && codePoints(value) < minLength)) {
    return { type: 'string_too_short', msg: `String should have at least ${plural(minLength, 'character')}` }
  }
  if (value.length > maxLength && codePoints(value) > maxLength) {
    return { type: 'string_too_long', msg: `String should have at most ${plural(maxLength, 'character')}` }
  }
  if (rules.notBlank && !/\S/.test(value)) return { type: 'string_blank', msg: 'String should not be blank' }
  if (maxBytes && Buffer.byteLength(value) > maxBytes) {
    return { type: 'string_too_long', msg: `String should have at most ${maxBytes} bytes of UTF-8` }
  }
  if (format === 'date-time' && parseInstant(value) === undefined) {
    const msg = 'Input should be a date and time with an offset (RFC 3339), such as 2026-11-23T18:00:00+01:00'
    return { type: 'datetime', msg }
  }
  if (format === 'uuid' && !isOwnId(value))
    return { type: 'uuid', msg: 'Input should be a UUID other than the nil and the max one' }
  if (rules.withinYear) return yearProblem(Date.parse(parseInstant(value)!))
  if (pattern && !pattern.test(value)) {
    return {
      type: 'string_pattern_mismatch',
      msg: `String should be ${rules.wanted ?? `a valid ${format ?? 'value'}`}`,
    }
  }
  return rules.problem?.(value)
}

function yearProblem(time: number): { type: string; msg: string } | undefined {
  const latest = new Date()
  if (time <= latest.getTime()) return { type: 'datetime_future', msg: 'Input should be in the future' }
  latest.setUTCFullYear(latest.getUTCFullYear() + 1)
  if (time <= latest.getTime()) return undefined
  return { type: 'less_than_equal', msg: 'Input should be at most one year ahead' }
}

TypeRegistry.Set<object>('Text', (schema, value) => textProblem(schema, value) === undefined)

// Formats are for the document: `text` checks what a client writes. Of what the server writes only an address is
// checked: Elysia's format accepts only ASCII, and would refuse to return addresses that `text` has accepted.
FormatRegistry.Set('email', value => value.includes('@'))
for (const format of ['date-time', 'uuid']) FormatRegistry.Set(format, () => true)

interface StringListOptions extends TextOptions {
  maxItems: number
  description: string
}

/**
 * A query parameter that may be repeated. Elysia's own list would split values at commas; the route reads them with
 * `queryValues`.
 */
export const stringList = ({ maxItems, description, ...item }: StringListOptions) =>
  Type.Unsafe<string[]>({
    [Kind]: 'StringList',
    type: 'array',
    maxItems,
    items: text(item),
    description,
  })

/**
 * The id in a path. Every value is valid: one that is not an id, or is badly percent-encoded, names nothing, which is a
 * 404 and no 422.
 */
export const pathId = (description: string) => Type.Unsafe<string>(Type.Any({ type: 'string', description }))

TypeRegistry.Set<{ maxItems: number; items: object }>(
  'StringList',
  ({ maxItems, items }, value) =>
    Array.isArray(value) &&
    value.length <= maxItems &&
    value.every(item => textProblem(items, item) === undefined),
)

/** Every value of a query parameter, as it was sent: `name` or `name[]`. */
export function queryValues(request: Request, name: string): string[] {
  const { searchParams } = new URL(request.url)
  return [...searchParams.getAll(name), ...searchParams.getAll(`${name}[]`)]
}

function codePoints(value: string): number {
  let count = 0
  for (const _ of value) count++
  return count
}

const plural = (count: number, noun: string) => `${count} ${noun}${count === 1 ? '' : 's'}`

/** One of these strings. */
export const oneOf = <const T extends readonly string[]>(values: T, options: object = {}) =>
  t.Union(
    values.map(value => t.Literal(value)),
    options,
  ) as unknown as ReturnType<typeof t.Unsafe<T[number]>>

/** An integer in a JSON body. `t.Integer` also accepts strings that look like one: it is for addresses. */
export const integer = Type.Integer

/** An instant as the server writes it. */
export const instant = (options: object = {}) =>
  t.String({ format: 'date-time', examples: ['2026-11-23T05:46:14.120000Z'], ...options })

/** An instant as a client writes it: RFC 3339 with an offset, read by `parseInstant`. */
export const instantInput = (options: TextOptions = {}) =>
  text({ format: 'date-time', examples: ['2099-01-31T18:00:00Z'], ...options })

/** A value that the route checks itself, one by one; `schema` says what it is. */
export const unchecked = <Schema extends TSchema>(schema: Schema) =>
  Type.Unsafe<Static<Schema>>(Type.Any({ documented: schema }))

export const uuid = (options: object = {}) =>
  t.String({ format: 'uuid', examples: ['019a9c3e-7b1f-7c4e-9a51-0d5f2f6f8b11'], ...options })

/** An id that a client chooses for what it creates. */
export const ownId = () =>
  uuidInput({
    description:
      'Your own id: any UUID but nil and max. Sent again, the request creates nothing and returns what has this id, as it is now.',
  })

/** An id as a client writes it. */
export const uuidInput = (options: TextOptions = {}) =>
  text({ format: 'uuid', examples: ['019a9c3e-7b1f-7c4e-9a51-0d5f2f6f8b11'], ...options })

/** What a filter by a reference accepts: an id, or `none`. */
export const idOrNone = /^(none|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$/

export const nullable = <T extends Parameters<typeof t.Union>[0][number]>(schema: T) =>
  t.Union([schema, t.Null()])

/**
 * A response that is JSON text already, and is sent as it is. For the OpenAPI document and for typed clients it is what
 * `schema` says; the code that writes the text keeps to it.
 */
export const jsonText = <Schema extends TSchema>(schema: Schema) =>
  t.String({ jsonOf: schema }) as unknown as TUnsafe<Static<Schema>>

/** Sends text that is the JSON of a `T`. */
export function sendJson<T>(set: Context['set'], text: string): T {
  set.headers['content-type'] = 'application/json'
  return text as T
}

/** A response of server-sent events, which the route sends as a `Response`; the document shows the example. */
export const eventStream = (example: string) =>
  t.String({ mediaType: 'text/event-stream', examples: [example] }) as unknown as TUnsafe<Response>

/** The schema of a response with these headers, which only the OpenAPI document uses. */
export const withHeaders = <Schema extends object>(schema: Schema, ...headers: string[]): Schema => ({
  ...schema,
  headers,
})

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
 * `query()`, `requireUser()`) the plugin declares. Elysia strips and checks only responses whose status is declared, and
 * the OpenAPI document shows them.
 */
export function errors<Code extends ErrorCode = never>(
  ...codes: Code[]
): ErrorResponses<Code | (typeof always)[number]> {
  const all = [...codes, ...always]
  return { ...responsesOf(all), [Symbol('codes')]: all } as ErrorResponses<Code | (typeof always)[number]>
}

/**
 * The responses of all errors that a route and its plugins have named. Of two with one status Elysia keeps the plugin's; the
 * codes are under a symbol for each `errors()`, so all of them are there.
 */
export function allErrors(response: Record<symbol, ErrorCode[]>) {
  return responsesOf(Object.getOwnPropertySymbols(response).flatMap(key => response[key]!))
}

function responsesOf(codes: ErrorCode[]) {
  const byStatus = Object.groupBy(new Set(codes), statusOf)
  return mapValues(byStatus as Record<string, ErrorCode[]>, responseOf)
}

function responseOf(codes: ErrorCode[]) {
  const texts = codes.map(textOf)
  const description = texts.join(', or: ')
  if (codes.some(code => statusOf(code) === 422)) return { ...validationErrorBody, description }
  const examples = codes.map((code, i) => ({ detail: texts[i], code, request_id: requestIdExample }))
  const headers = codes.includes('insufficient_scope') ? { headers: ['WWW-Authenticate'] } : {}
  return { ...errorBody, ...headers, description, examples }
}

/** An error that may be a 412 about such a resource. */
export const conflictBody = <Resource extends TSchema>(resource: Resource) =>
  t.Object(
    { ...errorBody.properties, current: t.Optional({ ...resource, description: 'As it is now.' }) },
    { title: `${resource.title}Conflict` },
  )

/** The 412 of a route that changes such a resource. */
export const preconditionFailed = <Resource extends TSchema>(
  resource: Resource,
  code: 'precondition_failed' | 'list_changed' = 'precondition_failed',
) => {
  const description = textOf(code)
  const examples = [{ detail: description, code: 'precondition_failed', request_id: requestIdExample }]
  return { 412: { ...conflictBody(resource), description, examples } }
}

/** For `response: { 204: noContent }`. */
export const noContent = t.Void()
