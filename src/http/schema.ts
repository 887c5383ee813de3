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
import { parseInstant } from '../lib/instant.ts'
import { isOwnId } from '../lib/uuid.ts'

/** The schema types of the API that TypeBox lacks or has in another form than JSON Schema. */

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
  /** What else can be wrong. */
  problem?: (value: string) => { type: string; msg: string } | undefined
  [annotation: string]: unknown
}

/**
 * A string whose length counts Unicode code points, like JSON Schema and PostgreSQL (TypeBox counts UTF-16 units). It
 * refuses NUL and lone surrogates, which PostgreSQL cannot store.
 */
export function text(options: TextOptions = {}): TString {
  const { notBlank, maxBytes, pattern, wanted: _, problem: __, ...shown } = options
  return Type.Unsafe<string>({
    ...shown,
    [Kind]: 'Text',
    [Rules]: options,
    type: 'string',
    ...(pattern && isPortable(pattern) && { pattern: sourceOf(pattern) }),
    ...(notBlank && { pattern: '\\S' }),
    // Not the whole truth (bytes, not characters): the description has the rest.
    ...(maxBytes && { maxLength: maxBytes }),
  }) as unknown as TString
}

/** JavaScript escapes a slash, which means nothing in JSON Schema. */
const sourceOf = ({ source }: RegExp) => source.replaceAll('\\/', '/')

/** What is checked of a text. Beside it, its schema is what JSON Schema can say of that. */
const Rules = Symbol('Rules')

/** Generators copy a pattern into languages that know no lookahead, and no `\p` without a flag: then the server alone checks it. */
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
    return { type: 'string_too_short', msg: `String should have at least ${characters(minLength)}` }
  }
  if (value.length > maxLength && codePoints(value) > maxLength) {
    return { type: 'string_too_long', msg: `String should have at most ${characters(maxLength)}` }
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
  if (pattern && !pattern.test(value)) {
    return {
      type: 'string_pattern_mismatch',
      msg: `String should be ${rules.wanted ?? `a valid ${format ?? 'value'}`}`,
    }
  }
  return rules.problem?.(value)
}

TypeRegistry.Set<object>('Text', (schema, value) => textProblem(schema, value) === undefined)

// Formats are for the document: `text` checks what a client writes. Of what the server writes only an address is
// checked: Elysia's format accepts only ASCII, and would refuse to return addresses that `text` has accepted.
FormatRegistry.Set('idn-email', value => value.includes('@'))
for (const format of ['date-time', 'uuid']) FormatRegistry.Set(format, () => true)

interface StringListOptions extends TextOptions {
  maxItems: number
  description: string
}

/**
 * A query parameter that may be repeated. Elysia's own list would split values at commas; the route reads them with
 * `queryValues` (query.ts).
 */
export const stringList = ({ maxItems, description, ...item }: StringListOptions) =>
  Type.Unsafe<string[]>({
    [Kind]: 'StringList',
    type: 'array',
    maxItems,
    items: text(item),
    description,
  })

TypeRegistry.Set<{ maxItems: number; items: object }>(
  'StringList',
  ({ maxItems, items }, value) =>
    Array.isArray(value) &&
    value.length <= maxItems &&
    value.every(item => textProblem(items, item) === undefined),
)

function codePoints(value: string): number {
  let count = 0
  for (const _ of value) count++
  return count
}

const characters = (count: number) => `${count} character${count === 1 ? '' : 's'}`

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

/**
 * The id in a path. Every value is valid: one that is not an id, or is badly percent-encoded, names nothing, which is a
 * 404 and no 422.
 */
export const pathId = (description: string) => Type.Unsafe<string>(Type.Any({ type: 'string', description }))

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

/** For `response: { 204: noContent }`. */
export const noContent = t.Void()

/**
 * `true` or `false` in an address, also as Python (`True`) and PHP (`1`) write them. Elysia's BooleanString has the two in the other
 * order, in which `1` would be read as false.
 */
export function flag(options: { description: string }) {
  const written = t.String({ format: 'boolean', default: false })
  return t
    .Transform(t.Union([written, t.Boolean(options)], options))
    .Decode(value => (typeof value === 'string' ? isTrue(value) : value) as boolean)
    .Encode(value => value)
}

const isTrue = (value: string) => /^(true|1)$/i.test(value)

FormatRegistry.Set('boolean', value => isTrue(value) || /^(false|0)$/i.test(value))
