import { type TObject, type TSchema, Type } from '@sinclair/typebox'
import { isTextForm, type Schema, toJsonSchema } from '../../http/json-schema.ts'
import { findProblems } from '../../http/problems.ts'
import { unknownFields } from '../../http/unknown-names.ts'
import { AppError, type Problem, problemsMax } from '../../lib/errors.ts'
import { mapValues } from '../../lib/map-values.ts'

/** What a request of the API has, as the arguments of a tool: a number is a number there, and no text that looks like one. */
export function asArguments<Parameters extends TObject>({ properties }: Parameters): Parameters {
  return Type.Object(mapValues<TSchema, TSchema>(properties, asArgument)) as TObject as Parameters
}

function asArgument(schema: TSchema): TSchema {
  const choices: TSchema[] = schema.anyOf ?? []
  return choices.some(isTextForm) ? Type.Optional(choices.find(choice => !isTextForm(choice))!) : schema
}

/** Throws `validation_failed` with all problems of the arguments; a name that is not known is one of them. */
export function checkArguments(schema: TObject, value: unknown): void {
  const problems = [
    ...findProblems({ arguments: { schema, value } }),
    ...unknownFields(schema, value, ['arguments']).take(problemsMax),
  ]
  if (problems.length > 0) throw new AppError('validation_failed', { detail: problems })
}

/** What a service says about a request, about the arguments of a tool. */
export const inArguments = (problems: Problem[]): Problem[] =>
  problems.map(({ loc, ...problem }) => ({ loc: ['arguments', ...argumentOf(loc)], ...problem }))

function argumentOf([section, ...rest]: Problem['loc']): Problem['loc'] {
  if (section === 'header') return ['key']
  // A task to add is an operation of a batch.
  const [part, index, , ...field] = rest
  return part === 'operations' ? ['tasks', index!, ...field] : rest
}

/** The JSON Schema of a tool's arguments, or of its result. That requires nothing: where a call fails, an error is sent instead. */
export const toolSchema = (schema: TObject, direction: { isInput: boolean }) =>
  shorten(toJsonSchema(schema as Schema, {}), direction)

/** Short, because an assistant reads it in every conversation: types and choices. `checkArguments` knows the rest. */
function shorten(schema: Schema, direction: { isInput: boolean }): Schema {
  const { type, enum: choices, format, minimum, maximum, required, items, properties } = schema
  return {
    ...(type && { type }),
    ...(choices && { enum: choices }),
    ...(format === 'date-time' && { format }),
    ...(maximum !== undefined && maximum !== Number.MAX_SAFE_INTEGER && { minimum, maximum }),
    ...(items && { items: shorten(items, direction) }),
    ...(properties && { properties: mapValues(properties, part => shorten(part, direction)) }),
    ...(properties && direction.isInput && { required, additionalProperties: false }),
  }
}
