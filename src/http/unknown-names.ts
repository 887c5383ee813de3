import { Kind, type TObject, type TSchema } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { type Problem, problemsMax } from '../lib/errors.ts'
import { hintFor } from '../lib/nearest.ts'
import { variantOf } from './problems.ts'
import { withoutBrackets } from './query.ts'
import { type Routes, type Schemas, schemasOf } from './route-table.ts'

/** The part of a request's context that is looked at; `rawBody` is there behind `body()`. */
interface Handled {
  request: Request
  route: string
  rawBody?: unknown
}

/** A name is not known, or comes twice: for the error handler, which says everything that is wrong with a request. */
export class UnknownNamesError extends Error {}

/**
 * The routes after it refuse what they do not know: a parameter of the address always, a field of the body only if the
 * client prefers that (RFC 7240, `Prefer: handling=strict`). Elysia would ignore both; and of a parameter that comes
 * twice and is no list, it would use the last. It runs after validation, so that without a token the answer is 401; when
 * the validation fails, the error handler adds these names.
 */
export function refuseUnknownNames(routes: () => Routes) {
  // Every list has parameters: a search through all routes would cost more than the check.
  const known = new Map<string, Schemas>()

  // What it uses is named: for a rest of the context Elysia would parse cookies and all else for every request.
  return new Elysia({ name: 'unknown-names' }).onBeforeHandle(
    { as: 'scoped' },
    ({ request, route, rawBody }: Handled) => {
      if (!request.url.includes('?') && !prefersStrict(request)) return
      const schemas = known.getOrInsertComputed(`${request.method} ${route}`, () =>
        schemasOf(routes(), request, route),
      )
      const names = unknownNames(schemas, request, rawBody)
      if (names.length > 0) throw new UnknownNamesError()
    },
  )
}

/** One problem for each name in a request that its route refuses, up to the most that an error names. */
export function unknownNames({ query, body }: Schemas, request: Request, rawBody: unknown): Problem[] {
  const fields =
    body && prefersStrict(request) ? unknownFields(body, rawBody, ['body']).take(problemsMax) : []
  return [...wrongParameters(query, request.url), ...fields]
}

/** Whether the client asks for unknown fields to be refused. */
export function prefersStrict({ headers }: Request): boolean {
  const prefer = headers.get('prefer')
  // The first one counts, without its parameters (RFC 7240, 2).
  const handling = prefer?.split(',').find(preference => /^\s*handling\s*=/i.test(preference))
  return handling !== undefined && /=\s*"?strict"?\s*(;|$)/i.test(handling)
}

function wrongParameters(schema: TSchema | undefined, url: string): Problem[] {
  const start = url.indexOf('?')
  if (start < 0) return []
  const known: Record<string, TSchema> = schema?.properties ?? {}
  const query = url.slice(start + 1)
  // Nearly all requests have known names only, each once and without an escape: they need not be decoded.
  const written = query.split('&').map(pair => pair.split('=', 1)[0]!)
  const isRight = (name: string, i: number) =>
    Object.hasOwn(known, name) && (isList(known[name]!) || written.indexOf(name) === i)
  if (written.every(isRight)) return []
  // With the `&`, because a `?` at the beginning would not count as a part of the name.
  const names = [...new URLSearchParams(`&${query}`).keys()]
  const unknown = [...new Set(names)]
    .filter(name => name !== '' && !name.startsWith('_') && !Object.hasOwn(known, withoutBrackets(name)))
    .slice(0, problemsMax)
    .map(name => unknownName(['query', name], 'parameter', Object.keys(known)))
  const single = names
    .map(withoutBrackets)
    .filter(name => Object.hasOwn(known, name) && !isList(known[name]!))
  return [...unknown, ...repeatedNames(single, ['query'])]
}

const isList = ({ type }: TSchema) => type === 'array'

/** One problem for each name that comes more than once. */
export function repeatedNames(names: string[], place: Problem['loc']): Problem[] {
  const repeated = [...Map.groupBy(names, name => name)].filter(([, all]) => all.length > 1)
  return repeated.map(([name]) => ({ loc: [...place, name], msg: 'Should come only once', type: 'repeated' }))
}

/** One problem for each field of a value that its schema does not know, found one by one: the nearest name takes time. */
export function* unknownFields(schema: TSchema, value: unknown, loc: Problem['loc']): Generator<Problem> {
  if (typeof value !== 'object' || value === null) return
  if (schema.discriminator) return yield* unknownFields(variantOf(schema, value), value, loc)
  if (Array.isArray(value)) {
    if (schema.items)
      for (const [i, item] of value.entries()) yield* unknownFields(schema.items, item, [...loc, i])
    return
  }
  if (schema[Kind] !== 'Object') return
  const { properties } = schema as TObject
  for (const [name, item] of Object.entries(value)) {
    if (Object.hasOwn(properties, name)) yield* unknownFields(properties[name]!, item, [...loc, name])
    else yield unknownName([...loc, name], 'field', Object.keys(properties))
  }
}

/** `known` are the names that might be meant. */
function unknownName(loc: Problem['loc'], what: string, known: string[]): Problem {
  // Also `tag[0]` is meant as a list.
  const written = String(loc.at(-1)).replace(/\[\w*\]$/, '')
  return { loc, msg: `Unknown ${what}: ${hintFor(written, known)}`, type: 'extra_forbidden' }
}
