import { Kind, OptionalKind, type TObject, type TSchema, Type } from '@sinclair/typebox'
import { type TypeCheck, TypeCompiler } from '@sinclair/typebox/compiler'
import { type ValueError, ValueErrorType } from '@sinclair/typebox/errors'
import { Value } from '@sinclair/typebox/value'
import { type Problem, problemsMax } from '../lib/errors.ts'
import { mapValues } from '../lib/map-values.ts'
import { isTextForm } from './json-schema.ts'
import { textProblem } from './schema.ts'

/** The parts of a request, by the first element of `loc`. */
type Sections = Partial<
  Record<'path' | 'query' | 'header' | 'body' | 'arguments', { schema: TSchema | undefined; value: unknown }>
>

const isText = (section: string) => section === 'path' || section === 'query' || section === 'header'

/**
 * Checks a value that is a part of a body; `schema` says what it is. It looks for about `max` problems. Compiled when it is
 * first needed.
 */
export function createCheck(schema: TSchema): (value: unknown, max?: number) => Problem[] {
  let compiled: TypeCheck<TSchema> | undefined
  return (value, max) => {
    compiled ??= TypeCompiler.Compile(schema)
    return compiled.Check(value) ? [] : findProblems({ body: { schema, value } }, max)
  }
}

/** A schema in which what the route checks itself (`unchecked` in schema.ts) is checked, too. */
export function checked(schema: TSchema): TSchema {
  if (schema[Kind] === 'Any' && schema.documented) return schema.documented
  if (schema[Kind] === 'Array') return { ...schema, items: checked(schema.items) }
  if (schema[Kind] !== 'Object') return schema
  return { ...schema, properties: mapValues((schema as TObject).properties, checked) }
}

/** Everything that is wrong with a request, in all its parts at once; of each about `max` problems. */
export function findProblems(sections: Sections, max = problemsMax): Problem[] {
  return Object.entries(sections).flatMap(([section, { schema, value }]) => {
    if (!schema) return []
    // Values in an address or a header are text, and are converted as Elysia converts them.
    const input = isText(section) ? fromText(schema as TObject, value) : value
    const errors = errorsOf(schema, input)
      // Unknown fields are ignored.
      .filter(({ type }) => type !== ValueErrorType.ObjectAdditionalProperties)
      // A list of 16,000 invalid items would delay every other request.
      .take(max + 1)
    return distinct([...errors.map(error => toProblem(section, error))])
  })
}

/** The errors of TypeBox; of a union with a discriminator those of the variant that the value names. */
function* errorsOf(schema: TSchema, value: unknown): Generator<ValueError> {
  for (const error of Value.Errors(schema, value)) {
    if (error.schema.discriminator === undefined) yield error
    else
      for (const inner of errorsOf(variantOf(error.schema, error.value), error.value))
        yield { ...inner, path: error.path + inner.path }
  }
}

/** The variant that the value names; an object with only the discriminator when it names none of them. */
export function variantOf({ discriminator, anyOf }: TSchema, value: unknown): TSchema {
  const tags: TSchema[] = anyOf.map((variant: TObject) => variant.properties[discriminator])
  const tag = (value as Record<string, unknown> | null)?.[discriminator]
  const index = tags.findIndex(
    schema => Value.Check(schema, tag) || (tag === undefined && OptionalKind in schema),
  )
  return anyOf[index] ?? Type.Object({ [discriminator]: Type.Union(tags) })
}

const fromText = ({ properties }: TObject, value: unknown) =>
  mapValues(value as Record<string, unknown>, (item, name) => readText(properties?.[name], item))

function readText(schema: TSchema | undefined, item: unknown): unknown {
  if (typeof item !== 'string') return item
  if (schema?.elysiaMeta === 'ArrayQuery' || schema?.[Kind] === 'Array') return item.split(',')
  const mayBeNumber = ['Integer', 'Number', 'Union'].includes(schema?.[Kind] ?? '')
  return mayBeNumber && item.trim() !== '' && Number.isFinite(+item) ? +item : item
}

/** One problem for each place: TypeBox reports a missing property twice, as missing and as of the wrong type. */
function distinct(problems: Problem[]): Problem[] {
  return [
    ...new Map(problems.toReversed().map(problem => [problem.loc.join('/'), problem])).values(),
  ].toReversed()
}

/** Digits in a path are an index of a list; no name of ours has a `/` or a `~`, which would be escaped. */
function toProblem(section: string, { type, path, schema, value }: ValueError): Problem {
  const parts = path.split('/').slice(1)
  const loc = [section, ...parts.map(part => (/^\d+$/.test(part) ? Number(part) : part))]
  const { msg, type: problem } = describe(type, schema, value)
  return { loc, msg, type: problem }
}

/** What TypeBox's errors are called here, and in words; `{name}` is a keyword of the schema. */
const descriptions: Partial<Record<ValueErrorType, [type: string, msg: string]>> = {
  [ValueErrorType.Object]: ['object_type', 'Input should be an object'],
  [ValueErrorType.Array]: ['list_type', 'Input should be a list'],
  [ValueErrorType.ArrayMaxItems]: ['too_long', 'List should have at most {maxItems} items'],
  [ValueErrorType.ArrayMinItems]: ['too_short', 'List should have at least {minItems} items'],
  [ValueErrorType.Integer]: ['int_type', 'Input should be a whole number'],
  [ValueErrorType.IntegerMinimum]: ['greater_than_equal', 'Input should be at least {minimum}'],
  [ValueErrorType.IntegerMaximum]: ['less_than_equal', 'Input should be at most {maximum}'],
  [ValueErrorType.Boolean]: ['bool_type', 'Input should be true or false'],
  [ValueErrorType.Literal]: ['literal_error', "Input should be '{const}'"],
}

function describe(type: ValueErrorType, schema: TSchema, value: unknown): Omit<Problem, 'loc'> {
  if (value === undefined) return { type: 'missing', msg: 'Field required' }
  if (schema[Kind] === 'Text') return textProblem(schema, value)!
  if (type === ValueErrorType.Union) return describeUnion(schema, value)
  if (schema[Kind] !== 'StringList') return inWords(type, schema)
  if (!Array.isArray(value)) return inWords(ValueErrorType.Array, schema)
  if (value.length > schema.maxItems) return inWords(ValueErrorType.ArrayMaxItems, schema)
  return value.map(item => textProblem(schema.items, item)).find(problem => problem !== undefined)!
}

function inWords(type: ValueErrorType, schema: TSchema): Omit<Problem, 'loc'> {
  const [name, msg] = descriptions[type] ?? ['value_error', 'Input should be valid']
  return { type: name, msg: msg.replace(/{(\w+)}/, (_, keyword) => schema[keyword]) }
}

/** A choice of strings; or a number in an address or a value that may be null, whose own problem is then described. */
function describeUnion(schema: TSchema, value: unknown): Omit<Problem, 'loc'> {
  const choices: TSchema[] = schema.anyOf
  const literals = choices.flatMap(choice => (choice.const === undefined ? [] : [`'${choice.const}'`]))
  if (literals.length > 0)
    return { type: 'literal_error', msg: `Input should be one of ${literals.join(', ')}` }
  const main = choices.find(choice => choice[Kind] !== 'Null' && !isTextForm(choice))
  const error = main && Value.Errors(main, value).First()
  if (!error) return { type: 'value_error', msg: 'Input should be valid' }
  const { type, msg } = describe(error.type, error.schema, error.value)
  // What a form sends for an empty field.
  const meansNull = value === '' && choices.some(choice => choice[Kind] === 'Null')
  return { type, msg: meansNull ? `${msg}, or null` : msg }
}
