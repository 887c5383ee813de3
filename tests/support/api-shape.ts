import type { Schema } from '../../src/http/json-schema.ts'
import type { OpenApiDocument } from '../../src/http/openapi-document.ts'
import { appWithoutDatabase } from '../../src/server/openapi.ts'

/**
 * What clients rely on, line by line: each call with its name, after which a method of a generated client is called, its
 * parameters, body and answers; the fields of each schema, and the errors.
 */
export function shapeOf({ paths, components }: OpenApiDocument): string {
  const calls = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).flatMap(
      ([method, { tags, operationId, parameters = [], requestBody, responses }]) => [
        `${method.toUpperCase()} ${path} ${tags[0]}.${operationId}`,
        ...parameters.map(({ in: place, name, schema, ...rest }) =>
          line(`${place} ${name}`, schema, 'required' in rest && rest.required === true),
        ),
        ...Object.entries(requestBody?.content ?? {}).map(([type, { schema }]) => line(type, schema)),
        `  answers ${Object.entries(responses).map(answer).join(', ')}`,
      ],
    ),
  )
  const schemas = Object.entries(components.schemas).flatMap(([name, schema]) => {
    const { properties, required, ...rest } = schema as Schema & { required?: string[] }
    if (!properties) return [name, `  ${inWords(rest)}`]
    const fields = Object.entries(properties).map(([field, part]) =>
      line(field, part, required?.includes(field) ?? false),
    )
    return [name, ...fields]
  })
  return `${[...calls, '', ...schemas, '', ...errorsOf(paths)].join('\n')}\n`
}

/** Every error by its status, in the words of its `detail`, and the calls that may answer it. */
function errorsOf(paths: OpenApiDocument['paths']): string[] {
  const operations = Object.values(paths).flatMap(methods => Object.values(methods))
  const calls = new Map<string, string[]>()
  for (const { operationId, responses } of operations)
    for (const [status, { description }] of Object.entries(responses).filter(([status]) => status >= '400'))
      for (const text of description.split(', or: ')) {
        const error = `${status} ${text}`
        calls.set(error, [...(calls.get(error) ?? []), operationId])
      }
  return [...calls]
    .map(
      ([error, names]) => `${error}: ${names.length === operations.length ? 'every call' : names.join(' ')}`,
    )
    .sort()
}

type Responses = OpenApiDocument['paths'][string][string]['responses']

/** A status, what comes in the body, and the headers of its own. */
function answer([status, { headers, content = {} }]: [string, Responses[string]]): string {
  const bodies = Object.values(content).map(({ schema }) => inWords(schema))
  const own = Object.keys(headers).filter(name => name !== 'X-Request-Id')
  return [status, ...bodies, ...(own.length > 0 ? [`(${own.join(' ')})`] : [])].join(' ')
}

const line = (name: string, schema: Schema, isRequired = true) =>
  `  ${name}${isRequired ? '' : '?'} ${inWords(schema)}`

/** The name of a schema, or its keywords. */
function inWords({ $ref, title: _, description: __, examples: ___, ...schema }: Schema): string {
  if ($ref !== undefined) return $ref.split('/').at(-1)!
  const { type = 'anything', items, anyOf, oneOf, ...rest } = schema
  const choices = (anyOf ?? oneOf)?.map(inWords).join(' or ')
  const keywords = Object.entries(rest).map(([keyword, value]) => `${keyword}=${JSON.stringify(value)}`)
  return [choices ?? [type].flat().join('|'), ...(items ? [`of ${inWords(items)}`] : []), ...keywords].join(
    ' ',
  )
}

if (import.meta.main) {
  const response = await appWithoutDatabase().handle(new Request('http://localhost/openapi.json'))
  const shape = shapeOf((await response.json()) as OpenApiDocument)
  await Bun.write(`${import.meta.dir}/../fixtures/api.txt`, shape)
}
