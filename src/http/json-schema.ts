import { mapValues } from '../lib/map-values.ts'
import type { Scope } from '../lib/scope.ts'

/** JSON Schema, and the annotations that our models add to it (`http/schema.ts`). */
export interface Schema {
  title?: string
  description?: string
  type?: string | string[]
  format?: string
  const?: unknown
  enum?: unknown[]
  examples?: unknown[]
  anyOf?: Schema[]
  oneOf?: Schema[]
  items?: Schema
  properties?: Record<string, Schema>
  $ref?: string
  /** What the document says in the place of what is checked. */
  documented?: Schema
  /** The property that tells the variants of a union apart; in the document as OpenAPI says it. */
  discriminator?: string | { propertyName: string; mapping: Record<string, string> }
  form?: boolean
  /** The type of a response that is not JSON. */
  mediaType?: string
  /** The text is JSON, and this is what stands in it. */
  jsonOf?: Schema
  /** The headers of a response. */
  headers?: string[]
  /** What the 401 of a route behind `requireUser` says: the scopes that reads and writes need. */
  scopes?: { read: Scope; write: Scope }
  [keyword: string]: unknown
}

/** Plain JSON Schema out of TypeBox's and our own; what has a title goes to `schemas` and is referred to. */
export function toJsonSchema(schema: Schema, schemas: Record<string, Schema>): Schema {
  if (schema.documented) return toJsonSchema(schema.documented, schemas)
  // `additionalProperties` is never ours: Elysia writes it into a schema when its route is first called.
  const { title, discriminator, form, additionalProperties, anyOf, items, properties, ...rest } = schema
  const convert = (part: Schema) => toJsonSchema(part, schemas)
  const plain: Schema = {
    ...rest,
    ...(isWide(rest) && { format: 'int64' }),
    ...(items && { items: convert(items) }),
    ...(properties && { properties: mapValues(properties, convert) }),
    ...(anyOf && typeof discriminator === 'string' && toTagged(discriminator, anyOf, convert)),
    ...(anyOf && !discriminator && toUnion(rest, anyOf.filter(choice => !isTextForm(choice)).map(convert))),
  }
  if (title === undefined) return plain
  // Examples stand beside the body, and the description of a response's schema is that of the response.
  const { examples: _, ...shared } = plain
  const known = schemas[title] ?? { title, ...shared }
  if (!Bun.deepEquals({ ...known, description: '' }, { title, ...shared, description: '' })) {
    throw new Error(`Two schemas are called ${title}`)
  }
  schemas[title] = { title, ...known, ...shared }
  return { $ref: `#/components/schemas/${title}` }
}

/** Generators for Java, C# and others make 32 bits of an integer that does not say more. */
const isWide = ({ type, maximum }: Schema) => type === 'integer' && Number(maximum) >= 2 ** 31

/** The shortest form of a choice: one of some texts, something or null, or what it is. */
function toUnion({ type: _, ...rest }: Schema, choices: Schema[]): Schema {
  const [first, second] = choices
  if (choices.length === 1) return { ...first, ...rest }
  if (choices.every(choice => 'const' in choice)) {
    return { type: first!.type!, enum: choices.map(choice => choice.const) }
  }
  if (choices.length === 2 && second!.type === 'null' && typeof first!.type === 'string') {
    return {
      ...first,
      ...rest,
      type: [first!.type, 'null'],
      ...(first!.enum && { enum: [...first!.enum, null] }),
    }
  }
  // No value has the form of two named schemas: some generators make one class of an `anyOf` of them.
  return choices.every(choice => '$ref' in choice) ? { oneOf: choices } : { anyOf: choices }
}

/** A union of named schemas that a property tells apart: it has another value in each. */
function toTagged(propertyName: string, variants: Schema[], convert: (part: Schema) => Schema): Schema {
  const references = variants.map(variant => [
    variant.properties![propertyName]!.const,
    convert(variant).$ref,
  ])
  return {
    oneOf: references.map(([, $ref]) => ({ $ref })) as Schema[],
    discriminator: { propertyName, mapping: Object.fromEntries(references) },
  }
}

const textFormats = ['integer', 'numeric', 'boolean']

/** In an address, Elysia's number is a union: a text in such a format, which is how it is sent, or the number itself. */
export const isTextForm = ({ type, format = '' }: Schema) => type === 'string' && textFormats.includes(format)
