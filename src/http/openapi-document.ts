import { STATUS_CODES } from 'node:http'
import { swagger } from '@elysiajs/swagger'
import type { AnyElysia } from 'elysia'
import { version } from '../../package.json'
import type { Config } from '../config/config.ts'
import { mapValues } from '../lib/map-values.ts'
import type { Scope } from '../lib/scope.ts'
import { describeErrors, errorBody, validationErrorBody } from './error-responses.ts'
import { type Schema, toJsonSchema } from './json-schema.ts'
import type { Routes } from './route-table.ts'

/**
 * The OpenAPI document of the app that `app` is a part of: Elysia tells a plugin the routes of the whole.
 * @elysiajs/swagger collects the routes, and `toOpenApi31` adds what it does not know (docs/decisions/0004-swagger-plugin.md).
 */
export async function createDocument(app: AnyElysia, routes: Routes, registration: Registration) {
  const specPath = '/as-collected.json'
  const collector = app.use(swagger({ path: '/unused-page', specPath }))
  const response = await collector.handle(new Request(`http://localhost${specPath}`))
  const collected = (await response.json()) as PluginOutput
  for (const { method, path, hooks } of routes) {
    const operation = collected.paths[path.replace(/:(\w+)/g, '{$1}')]?.[method.toLowerCase()]
    if (operation) nameErrors(operation, hooks.response ?? {})
  }
  return toOpenApi31(collected, registration)
}

const commonBodies = [errorBody.title, validationErrorBody.title]

/** Says what the errors are; other bodies than the common ones say it themselves. */
function nameErrors({ responses }: CollectedOperation, declared: Parameters<typeof describeErrors>[0]) {
  for (const [status, described] of Object.entries(describeErrors(declared))) {
    const response = responses[status]
    if (response && commonBodies.includes(response.title)) Object.assign(response, described)
  }
}

export type Registration = Config['registration']

export type OpenApiDocument = Awaited<ReturnType<typeof createDocument>>

interface Media {
  schema: Schema
  example?: unknown
  examples?: Record<string, { value: unknown }>
}

interface Parameter {
  name: string
  in: string
  description?: string
  schema: Schema
  /** Of the plugin; in the document they stand in the schema. */
  examples?: unknown[]
}

/** What the plugin makes of an operation and its responses: parts of a response's schema stand beside it. */
interface CollectedOperation {
  operationId: string
  summary: string
  description?: string
  tags: string[]
  hide?: boolean
  parameters?: Parameter[]
  requestBody?: { content: Record<string, Media> }
  responses: Record<string, CollectedResponse>
}

interface CollectedResponse {
  title?: string
  description?: string
  examples?: unknown[]
  headers?: string[]
  /** Of a route behind `requireUser`. */
  scopes?: { read: Scope; write: Scope }
  content?: Record<string, Media>
}

interface PluginOutput {
  paths: Record<string, Record<string, CollectedOperation>>
}

const json = 'application/json'
const form = 'application/x-www-form-urlencoded'

const infoOf = (registration: Registration) => ({
  title: 'todo-api',
  version,
  summary: 'Your tasks, over HTTP.',
  license: { name: 'MIT', identifier: 'MIT' },
  description: [
    // Not as `externalDocs`, whose address must name a host.
    '[Guides](/docs/guides): settings, hosting, backups and more.',
    '',
    'To try it here:',
    registration === 'open'
      ? '1. Create an account with **POST /api/v1/auth/register**.'
      : '1. Registration is closed: the operator creates accounts, with `todo-api user create`.',
    '2. Press **Authorize** and sign in with the e-mail address (as *username*) and the password.',
    '3. Create a task with **POST /api/v1/tasks**, and see it in **GET /api/v1/tasks**.',
    '',
    'Programs sign in with an API token, from **POST /api/v1/auth/tokens**; **Authorize** takes one, too.',
    '',
    'Every error has the same shape: `detail` is for display, `code` for programs, and `request_id` is also the header ' +
      '`X-Request-Id` of the response.',
    '',
    'A parameter that an address does not know is a 422. Unknown fields of a body are ignored; with the header ' +
      '`Prefer: handling=strict` each of them is a 422.',
  ].join('\n'),
})

const tags = [
  { name: 'auth', description: 'Create an account and sign in' },
  { name: 'users', description: 'Your account' },
  { name: 'tasks', description: 'Your tasks; no other user sees them' },
  { name: 'lists', description: 'Your lists of tasks' },
  { name: 'health', description: 'For load balancers and operators' },
]

const securitySchemes = {
  password: {
    type: 'oauth2',
    description: 'Sign in with the e-mail address as `username`.',
    flows: {
      password: { tokenUrl: '/api/v1/auth/login', refreshUrl: '/api/v1/auth/refresh', scopes: {} },
    },
  },
  apiToken: {
    type: 'http',
    scheme: 'bearer',
    description:
      'An API token, from **POST /api/v1/auth/tokens**. Each operation names the scope that it needs.',
  },
}

/** Every header that a response may carry, by name; a route names its own with `withHeaders` (`http/schema.ts`). */
const headers: Record<string, object> = {
  'X-Request-Id': {
    description: 'Names the request in our log. A sane one that you send is kept.',
    schema: { type: 'string', examples: ['019a9c3e-7b1f-7000-9a51-0d5f2f6f8b11'] },
  },
  'WWW-Authenticate': {
    description: 'What to sign in with, or which scope the API token lacks (RFC 6750).',
    schema: {
      type: 'string',
      examples: ['Bearer', 'Bearer error="insufficient_scope", scope="tasks:write"'],
    },
  },
  'Retry-After': {
    description: 'Try again after this many seconds.',
    schema: { type: 'integer', examples: [2] },
  },
  RateLimit: {
    description: 'What is left: `r` calls in the next `t` seconds (draft-ietf-httpapi-ratelimit-headers).',
    schema: { type: 'string', examples: ['"login";r=119;t=60'] },
  },
  'RateLimit-Policy': {
    description: 'The limit: `q` calls in `w` seconds.',
    schema: { type: 'string', examples: ['"login";q=120;w=60'] },
  },
  ETag: {
    description: 'The version of the task or list; of a page and of changes, a tag of what they hold.',
    schema: { type: 'string', examples: ['"1"'] },
  },
  Link: {
    description: 'Where the next page is (RFC 8288); absent on the last one.',
    schema: { type: 'string', examples: ['</api/v1/tasks?cursor=q83vEjRWeJA>; rel="next"'] },
  },
  'X-Total-Count': {
    description: 'How many there are in all; only when asked for.',
    schema: { type: 'integer', examples: [120] },
  },
  Location: {
    description: 'The address of what was made.',
    schema: {
      type: 'string',
      format: 'uri-reference',
      examples: ['/api/v1/tasks/019a9c3e-7b1f-7c4e-9a51-0d5f2f6f8b11'],
    },
  },
}

/** Headers that come with a status, whatever the route. */
const headersOfStatus: Record<string, string[]> = {
  401: ['WWW-Authenticate'],
  429: ['Retry-After'],
  503: ['Retry-After'],
}

/** The whole document from the collected routes: OpenAPI 3.1, real media types, named schemas, headers, security. */
function toOpenApi31(collected: PluginOutput, registration: Registration) {
  const schemas: Record<string, Schema> = {}

  const paths = mapValues(collected.paths, operations =>
    mapValues(operations, ({ hide, parameters = [], requestBody, responses, ...rest }, method) => ({
      ...rest,
      ...accessOf(method, responses, rest.description),
      ...(parameters.length > 0 && { parameters: parameters.sort(byPlace).map(toParameter) }),
      ...(requestBody && { requestBody: { required: true, content: toBody(requestBody.content) } }),
      responses: mapValues(responses, toResponse),
    })),
  )

  function toParameter({ name, examples, schema, ...parameter }: Parameter): Parameter {
    // The plugin has copied the description.
    const { description: _, ...plain } = toJsonSchema(schema, schemas)
    return {
      name: parameter.in === 'header' ? capitalize(name) : name,
      ...parameter,
      schema: { ...plain, ...(examples && { examples }) },
    }
  }

  function toBody(content: Record<string, Media>) {
    const { schema } = Object.values(content)[0]!
    // One type for each body: most generators make a method of each. Where a form is shown, JSON is taken too.
    return { [schema.form ? form : json]: toMedia(schema) }
  }

  function toResponse(response: CollectedResponse, status: string) {
    const { title, description, examples, content, headers: own = [] } = response
    const schema = content && Object.values(content)[0]?.schema
    const names = ['X-Request-Id', ...(headersOfStatus[status] ?? []), ...own]
    return {
      description: description ?? STATUS_CODES[status] ?? status,
      headers: Object.fromEntries(names.map(name => [name, { $ref: `#/components/headers/${name}` }])),
      ...(schema && {
        content: {
          [schema.mediaType ?? json]: toMedia({
            ...schema,
            ...(title && { title }),
            ...(examples && { examples }),
          }),
        },
      }),
    }
  }

  /** The examples of a body stand beside its schema, where every tool finds them; an error's by its code. */
  function toMedia({ jsonOf, mediaType: _, examples = [], ...schema }: Schema): Media {
    if (jsonOf) return toMedia(jsonOf)
    const media = { schema: toJsonSchema(schema, schemas) }
    if (examples.length < 2) return { ...media, ...(examples.length === 1 && { example: examples[0] }) }
    const named = examples.map((value, i) => [
      (value as { code?: string }).code ?? `example ${i + 1}`,
      { value },
    ])
    return { ...media, examples: Object.fromEntries(named) }
  }

  return {
    openapi: '3.1.0',
    info: infoOf(registration),
    servers: [{ url: '/' }],
    tags,
    paths,
    components: { securitySchemes, headers, schemas: Object.fromEntries(Object.entries(schemas).sort()) },
  }
}

/** What a caller may sign in with: `requireUser` says it beside its 401. The linters know no scopes but OAuth's. */
function accessOf(
  method: string,
  { 401: response }: CollectedOperation['responses'],
  description = '',
): { security: object[]; description?: string } {
  if (!response?.scopes) return { security: [] }
  const scope = method === 'get' ? response.scopes.read : response.scopes.write
  if (scope === 'session') return { security: [{ password: [] }] }
  return {
    security: [{ password: [] }, { apiToken: [] }],
    description: `${description}\n\nAPI tokens need the scope \`${scope}\`.`.trim(),
  }
}

const places = ['path', 'query', 'header']
const byPlace = (a: Parameter, b: Parameter) => places.indexOf(a.in) - places.indexOf(b.in)

/** A header's name as it is usually written: `If-Match`. */
const capitalize = (name: string) => name.replace(/\b\w/g, letter => letter.toUpperCase())
