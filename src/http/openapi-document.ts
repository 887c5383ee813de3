import { STATUS_CODES } from 'node:http'
import { mapProperties, toOpenAPIPath } from '@elysiajs/swagger/utils'
import { version } from '../../package.json'
import type { Config } from '../config/config.ts'
import { mapValues } from '../lib/map-values.ts'
import { allResponses } from './error-responses.ts'
import { type Schema, toJsonSchema } from './json-schema.ts'
import type { Routes } from './route-table.ts'
import { noContent } from './schema.ts'

export type Registration = Config['registration']

export type OpenApiDocument = ReturnType<typeof createDocument>

interface Media {
  schema: Schema
  example?: unknown
  examples?: Record<string, { value: unknown }>
}

/** What a route declares. */
interface Declared {
  detail: { operationId: string; summary: string; description?: string; tags: string[] }
  parameters: Parameter[]
  body?: Schema
  response: Record<string, Schema>
}

/** A parameter as the plugin has it; in the document its examples stand in the schema. */
type Parameter = ReturnType<typeof mapProperties>[number]

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
  // Not the name of the schema ApiToken: some generators write both into one namespace.
  apiTokenAuth: {
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

/**
 * The OpenAPI document of these routes. @elysiajs/swagger knows paths and parameters; the rest it would say by OpenAPI 3.0
 * and with media types that are not ours (docs/decisions/0004-swagger-plugin.md).
 */
export function createDocument(routes: Routes, registration: Registration) {
  const schemas: Record<string, Schema> = {}
  const paths: Record<string, Record<string, ReturnType<typeof toOperation>>> = {}
  for (const { method, path, hooks } of routes) {
    if (hooks.detail?.hide) continue
    const address = toOpenAPIPath(path)
    paths[address] = { ...paths[address], [method.toLowerCase()]: toOperation(method, hooks) }
  }

  function toOperation(method: string, hooks: Routes[number]['hooks']) {
    const { detail, parameters, body, response } = declaredBy(hooks)
    const { operationId, ...about } = detail
    return {
      operationId,
      ...about,
      ...accessOf(method, response, about.description),
      ...(parameters.length > 0 && { parameters: parameters.map(toParameter) }),
      // One type for each body: most generators make a method of each. Where a form is shown, JSON is taken too.
      ...(body && { requestBody: { required: true, content: { [body.form ? form : json]: toMedia(body) } } }),
      responses: mapValues(response, (declared, status) => toResponse(status, declared)),
    }
  }

  function toParameter({ name, examples, schema, ...parameter }: Parameter) {
    // The plugin has copied the description.
    const { description: _, ...plain } = toJsonSchema(schema, schemas)
    return {
      name: parameter.in === 'header' ? capitalize(name) : name,
      ...parameter,
      schema: { ...plain, ...(examples && { examples }) },
    }
  }

  function toResponse(
    status: string,
    { description = STATUS_CODES[status] ?? status, headers: own = [], scopes: _, ...schema }: Schema,
  ) {
    const names = ['X-Request-Id', ...(headersOfStatus[status] ?? []), ...own]
    return {
      description,
      headers: Object.fromEntries(names.map(name => [name, { $ref: `#/components/headers/${name}` }])),
      ...(schema.type !== 'void' && { content: { [schema.mediaType ?? json]: toMedia(schema) } }),
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

/** What a route declares, by way of JSON: without TypeBox's symbols. */
function declaredBy(hooks: Routes[number]['hooks']): Declared {
  const parameters = [
    ...mapProperties('path', hooks.params, {}),
    ...mapProperties('query', hooks.query, {}),
    ...mapProperties('header', hooks.headers, {}),
  ]
  const response = allResponses(hooks.response ?? { 200: noContent })
  return JSON.parse(JSON.stringify({ detail: {}, ...hooks, response, parameters }))
}

/** What a caller may sign in with: `requireUser` says it beside its 401. The linters know no scopes but OAuth's. */
function accessOf(
  method: string,
  { 401: response }: Record<string, Schema>,
  description = '',
): { security: object[]; description?: string } {
  if (!response?.scopes) return { security: [] }
  const scope = method === 'GET' ? response.scopes.read : response.scopes.write
  if (scope === 'session') return { security: [{ password: [] }] }
  return {
    security: [{ password: [] }, { apiTokenAuth: [] }],
    description: `${description}\n\nAPI tokens need the scope \`${scope}\`.`.trim(),
  }
}

/** A header's name as it is usually written: `If-Match`. */
const capitalize = (name: string) => name.replace(/\b\w/g, letter => letter.toUpperCase())
