import { describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Validator } from '@seriousme/openapi-schema-validator'
import type { TSchema } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import { Elysia } from 'elysia'
import { docs } from '../src/http/docs.ts'
import { allResponses } from '../src/http/error-responses.ts'
import { type Schema, toJsonSchema } from '../src/http/json-schema.ts'
import type { OpenApiDocument } from '../src/http/openapi-document.ts'
import { AppError, type ErrorCode } from '../src/lib/errors.ts'
import { misplacedCodes } from '../src/modules/tasks/placement.ts'
import { appWithoutDatabase } from '../src/server/openapi.ts'
import { shapeOf } from './support/api-shape.ts'
import { requiredScope } from './support/required-scopes.ts'

const app = appWithoutDatabase()
const get = (path: string, headers: Record<string, string> = {}) =>
  app.handle(new Request(`http://localhost${path}`, { headers }))
const document = (await (await get('/openapi.json')).json()) as OpenApiDocument

/** Routes that are for browsers, and the addresses of the FastAPI service. */
const hidden = [
  '/',
  '/docs',
  '/docs/assets/:version/:file',
  '/docs/guides',
  '/docs/guides/:name',
  '/mcp',
  '/openapi.json',
  '/swagger',
  '/swagger/json',
]
const isHidden = (path: string) => hidden.includes(path) || /^\/api\/(?!v1\/)/.test(path)

interface Hooks {
  body?: TSchema
  response?: Record<string, TSchema>
  detail?: { description?: string }
}

const routes = app.routes
  .filter(({ method, path }) => method !== 'OPTIONS' && !isHidden(path))
  .map(({ method, path, hooks }) => ({
    name: `${method} ${path.replace(/:(\w+)/g, '{$1}')}`,
    hooks: hooks as Hooks,
  }))

const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({
    name: `${method.toUpperCase()} ${path}`,
    method: method.toUpperCase(),
    path,
    operation,
  })),
)
const operationOf = (name: string) => operations.find(operation => operation.name === name)!.operation

describe('the OpenAPI document', () => {
  test('passes a validator of OpenAPI 3.1', async () => {
    const result = await new Validator().validate({ ...document })
    expect(result).toEqual({ valid: true })
    expect(document.openapi).toBe('3.1.0')
  })

  test('lists every route but the hidden ones, once', () => {
    expect(operations.map(({ name }) => name).sort()).toEqual(routes.map(({ name }) => name).sort())
    expect(routes.length).toBeGreaterThan(10)
  })

  test('says of every call and schema what clients rely on', async () => {
    // After a change on purpose, `bun run generate` writes the file again: its diff shows what changes for clients.
    const known = await Bun.file(join(import.meta.dir, 'fixtures/api.txt')).text()
    expect(shapeOf(document).split('\n')).toEqual(known.split('\n'))
  })

  test('has the header of every precondition, and says what the parameter in a path is', () => {
    for (const { name, operation } of operations) {
      const { parameters = [], responses } = operation
      const named = new Set(parameters.map(parameter => parameter.name.toLowerCase()))
      // A batch names versions in its operations.
      const isChange = '412' in responses && operation.operationId !== 'batchTasks'
      expect([name, named.has('if-match')]).toEqual([name, isChange])
      expect([name, named.has('if-none-match')]).toEqual([name, isChange || '304' in responses])
      for (const { in: place, description } of parameters)
        if (place === 'path')
          expect([name, description]).toEqual([name, expect.stringContaining('The id of')])
    }
  })

  test('has a name, a summary and a known tag for every operation', () => {
    const names = operations.map(({ operation }) => operation.operationId)
    expect(new Set(names).size).toBe(names.length)

    const tags = document.tags.map(({ name }) => name)
    for (const { operation } of operations) {
      expect(operation.summary).not.toBeEmpty()
      expect(tags).toContain(operation.tags[0]!)
    }
  })

  test.each(routes)('shows every status that $name declares', ({ name, hooks }) => {
    expect(Object.keys(operationOf(name).responses)).toEqual(Object.keys(allResponses(hooks.response ?? {})))
  })

  test('describes each operation in the words of its route, and each list in an address', () => {
    for (const { name, hooks } of routes) {
      const { description = '', parameters = [] } = operationOf(name)
      expect(description).toStartWith(hooks.detail?.description ?? '')
      const lists = parameters.filter(({ schema }) => schema.type === 'array')
      for (const list of lists) expect([list.name, list.description]).toEqual([list.name, expect.any(String)])
    }
  })

  test.each(operations)(
    'says truly what $name needs: nothing, a sign-in, or an API token with a scope',
    async ({ method, path, operation }) => {
      const address = path.replace(/{\w+}/g, '019a9c3e-7b1f-7c4e-9a51-0d5f2f6f8b11')
      const response = await app.handle(new Request(`http://localhost${address}`, { method }))
      const { code } = (await response.json()) as { code?: string }

      const needsToken = code === 'not_authenticated'
      const scope = needsToken ? requiredScope(method, path) : 'session'
      expect(operation.security).toEqual([
        ...(needsToken ? [{ password: [] }] : []),
        ...(scope === 'session' ? [] : [{ apiTokenAuth: [] }]),
      ])
      const named = /API tokens need the scope `(.*)`/.exec(operation.description ?? '')?.[1]
      expect(named).toBe(scope === 'session' ? undefined : scope)
      if (needsToken) {
        expect(operation.responses[401]?.headers).toContainKey('WWW-Authenticate')
        expect(JSON.stringify(operation.responses[403])).toContain('insufficient_scope')
      }
    },
  )

  test('declares the OAuth 2 fields for every failure of the OAuth 2 calls', () => {
    for (const path of ['login', 'refresh', 'revoke']) {
      const { 200: _, ...failures } = operationOf(`POST /api/v1/auth/${path}`).responses
      for (const [status, { content }] of Object.entries(failures)) {
        const name = status === '422' ? 'OAuthValidationFailed' : 'OAuthError'
        expect(content!['application/json']!.schema).toEqual({ $ref: `#/components/schemas/${name}` })
      }
      expect(failures[415]!.description).toStartWith('Send a form or JSON')
    }
  })

  test('says that a 412 shows the task or the list as it is now', () => {
    const { schemas } = document.components
    for (const kind of ['Task', 'TaskList'])
      expect(schemas[`${kind}Conflict`]!.properties!.current).toMatchObject({
        $ref: `#/components/schemas/${kind}`,
      })
    for (const { name, operation } of operations) {
      const { content } = operation.responses[412] ?? {}
      const kind = name.includes('/lists') ? 'TaskList' : 'Task'
      if (content)
        expect([name, content['application/json']!.schema]).toEqual([
          name,
          { $ref: `#/components/schemas/${kind}Conflict` },
        ])
    }
  })

  test('says of a restore only what may become of it', () => {
    const { description } = operationOf('POST /api/v1/tasks/{id}/restore').responses[422]!
    expect(description).toBe('A task has at most 200 children, or: Validation failed')
  })

  test('names what comes in the headers of an answer', () => {
    for (const { operation } of operations) {
      for (const [status, { headers }] of Object.entries(operation.responses)) {
        expect(headers).toContainKey('X-Request-Id')
        if (status === '503' || status === '429') expect(headers).toContainKey('Retry-After')
      }
    }
    for (const [name, status, headers] of [
      ['POST /api/v1/tasks', 201, ['ETag', 'Location']],
      ['POST /api/v1/lists', 201, ['ETag', 'Location']],
      ['GET /api/v1/tasks', 200, ['ETag', 'Link', 'X-Total-Count']],
      ['GET /api/v1/lists', 200, ['ETag', 'Link', 'X-Total-Count']],
      ['GET /api/v1/tasks/trash', 200, ['Link']],
      ['GET /api/v1/tasks/changes', 200, ['ETag']],
      ['GET /api/v1/tasks/{id}', 304, ['ETag']],
      ['PATCH /api/v1/tasks/{id}', 200, ['ETag']],
      ['PATCH /api/v1/lists/{id}', 200, ['ETag']],
    ] as [string, number, string[]][])
      expect([name, Object.keys(operationOf(name).responses[status]!.headers)]).toEqual([
        name,
        expect.arrayContaining(headers),
      ])
    for (const [call, done] of [
      ['login', 200],
      ['register', 201],
    ] as const) {
      const { [done]: made, 429: limited } = operationOf(`POST /api/v1/auth/${call}`).responses
      expect(made!.headers).toContainKeys(['RateLimit', 'RateLimit-Policy'])
      expect(limited!.headers).toContainKeys(['Retry-After', 'RateLimit', 'RateLimit-Policy'])
    }
    // The limits of an account and of streams say only when to try again.
    const withLimit = operations.filter(({ operation }) => operation.responses[429]?.headers.RateLimit)
    expect(withLimit.map(({ operation }) => operation.operationId).sort()).toEqual(['login', 'register'])
  })

  test.each<[string, number, ErrorCode[]]>([
    ['GET /api/v1/tasks/changes', 410, ['cursor_expired']],
    ['POST /api/v1/tasks', 409, ['id_used', 'idempotency_key_used']],
    ['POST /api/v1/lists', 409, ['id_used', 'idempotency_key_used', 'too_many_lists']],
    // A plugin of these routes has errors with the same status.
    ['GET /api/v1/tasks/{id}', 403, ['not_authorized', 'insufficient_scope']],
    ['POST /api/v1/tasks', 422, ['validation_failed', 'idempotency_key_reused', ...misplacedCodes]],
    ['PATCH /api/v1/tasks/{id}', 422, ['validation_failed', ...misplacedCodes]],
    ['POST /api/v1/tasks/batch', 422, ['validation_failed', ...misplacedCodes]],
  ])('has for %s every reason for a %i', (name, status, codes) => {
    const { description } = operationOf(name).responses[status]!
    expect(description.split(', or: ').sort()).toEqual(codes.map(code => new AppError(code).message).sort())
  })

  test('is made once, at the first request for it', async () => {
    let made = 0
    const app = new Elysia().use(
      docs('open', () => {
        made++
        return []
      }),
    )
    const ask = () => app.handle(new Request('http://localhost/openapi.json'))
    await app.handle(new Request('http://localhost/docs'))
    expect(made).toBe(0)

    await Promise.all([ask(), ask()])
    await ask()

    expect(made).toBe(1)
  })

  test('that could not be made is made at the next request', async () => {
    let isFirst = true
    const routes = () => {
      if (!isFirst) return []
      isFirst = false
      throw new Error('out of memory')
    }
    const app = new Elysia().use(docs('open', routes))
    const ask = async () => (await app.handle(new Request('http://localhost/openapi.json'))).status

    expect([await ask(), await ask(), await ask()]).toEqual([500, 200, 200])
  })

  test('is made for a route that declares no response', async () => {
    const plain = new Elysia().get('/plain', () => 'text')
    const app = new Elysia().use(docs('open', () => plain.routes)).use(plain)
    const made = await app.handle(new Request('http://localhost/openapi.json'))

    expect([made.status, Object.keys(((await made.json()) as OpenApiDocument).paths)]).toEqual([
      200,
      ['/plain'],
    ])
  })

  test('has parameters in the order of their places, and schemas by name', () => {
    const places = ['path', 'query', 'header']
    for (const { operation } of operations) {
      const parameters = (operation.parameters ?? []).map(parameter => places.indexOf(parameter.in))
      expect(parameters).toEqual(parameters.toSorted((a, b) => a - b))
      for (const { schema } of operation.parameters ?? []) expect(schema).not.toContainKey('description')
    }
    const schemas = Object.keys(document.components.schemas)
    expect(schemas).toEqual(schemas.toSorted())
  })

  test('writes headers as they are usually written, and requires every body', () => {
    const parameters = operations.flatMap(({ operation }) => operation.parameters ?? [])
    const headers = new Set(parameters.filter(parameter => parameter.in === 'header').map(({ name }) => name))
    expect([...headers].sort()).toEqual(['Idempotency-Key', 'If-Match', 'If-None-Match', 'Last-Event-Id'])
    for (const { operation } of operations) expect(operation.requestBody?.required ?? true).toBe(true)
  })

  test('says how to get an account', async () => {
    const closed = await new Elysia()
      .use(docs('closed', () => []))
      .handle(new Request('http://localhost/openapi.json'))

    expect(document.info.description).toContain('Create an account with **POST /api/v1/auth/register**')
    expect(((await closed.json()) as OpenApiDocument).info.description).toContain('Registration is closed')
  })

  test('says where to sign in and to refresh, and under which license it is', () => {
    expect(document.info).toMatchObject({ license: { identifier: 'MIT' } })
    expect(document.components.securitySchemes).toMatchObject({
      password: {
        flows: { password: { tokenUrl: '/api/v1/auth/login', refreshUrl: '/api/v1/auth/refresh' } },
      },
    })
  })

  test('shows one media type for each body, and only types that are really taken and given', () => {
    const forms = ['login', 'refresh', 'revoke']
    for (const { operation } of operations) {
      const { operationId, requestBody, responses } = operation
      const json = ['application/json']
      if (requestBody) {
        const types = forms.includes(operationId) ? ['application/x-www-form-urlencoded'] : json
        expect(Object.keys(requestBody.content)).toEqual(types)
      }
      for (const [status, { content }] of Object.entries(responses)) {
        const isStream = operationId === 'streamChanges' && status === '200'
        const types = isStream ? ['text/event-stream'] : /204|304/.test(status) ? [] : json
        expect(Object.keys(content ?? {})).toEqual(types)
      }
    }
  })

  test('names the schema of every object', () => {
    const nameless = schemasOf(document).filter(({ place, schema }) => schema.properties && !isNamed(place))
    expect(nameless).toEqual([])
  })

  test('refers only to what is there', () => {
    const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/([^"]+)"/g)].map(
      ([, path]) => path!,
    )
    expect(references.length).toBeGreaterThan(100)
    for (const path of new Set(references)) {
      const target = path
        .split('/')
        .reduce<unknown>((at, key) => (at as Record<string, unknown>)?.[key], document)
      expect(target, path).toBeDefined()
    }
  })

  test('shows no example that breaks its own schema', () => {
    const ajv = new Ajv2020({ strict: false, allErrors: true })
    addFormats(ajv)
    ajv.addFormat('idn-email', /@/)
    ajv.addSchema(document, 'document')
    const problems: unknown[] = []
    let checked = 0
    for (const { place, schema, examples } of examplesOf(document)) {
      const validate = ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"document#/')))
      for (const example of examples) {
        checked++
        if (!validate(example)) problems.push({ place, example, errors: ajv.errorsText(validate.errors) })
      }
    }
    expect(problems).toEqual([])
    expect(checked).toBeGreaterThan(200)
  })

  test('proposes due dates that stay in the future', () => {
    const dates = [...JSON.stringify(document).matchAll(/"due_at":"(\d+)-/g)].map(([, year]) => Number(year))
    expect(dates.length).toBeGreaterThan(5)
    expect(dates.filter(year => year < 2090)).toEqual([])
    const { due_at } = document.components.schemas.TaskCreate!.properties!
    expect(due_at!.examples).toEqual(['2099-01-31T18:00:00Z'])
  })

  test('holds only patterns that generators can copy into any language', () => {
    const patterns = schemasOf(document).flatMap(({ schema }) => schema.pattern ?? [])
    expect(patterns.length).toBeGreaterThan(5)
    // Without a flag, no lookahead, no named class, no Unicode property, and no escape that only JavaScript needs.
    for (const pattern of patterns) expect(pattern).not.toMatch(/\(\?|\\[pPkbB/]/)
    const { email } = document.components.schemas.Registration!.properties!
    // Addresses may have letters beyond ASCII, which `email` does not allow.
    expect(email).toMatchObject({ type: 'string', format: 'idn-email', maxLength: 254 })
    expect(email).not.toHaveProperty('pattern')
  })

  test('says of every integer that may exceed 32 bits that it has 64', () => {
    const integers = schemasOf(document).filter(({ schema }) => [schema.type].flat().includes('integer'))
    const wide = integers.filter(
      ({ place, schema }) => place.endsWith('.version') || Number(schema.maximum) >= 2 ** 31,
    )

    expect(wide.length).toBeGreaterThan(3)
    for (const { place, schema } of integers) {
      const isWide = wide.some(other => other.place === place)
      expect([place, schema.format]).toEqual([place, isWide ? 'int64' : undefined])
    }
    for (const [maximum, format] of [[2 ** 31 - 1], [2 ** 31, 'int64']] as const)
      expect(toJsonSchema({ type: 'integer', maximum }, {}).format).toBe(format)
  })

  test('names no schema as Python or a Go client name something else', () => {
    // In Python `List` is a type of the language; in Go `NewTask` is the constructor of `Task`.
    const names = Object.keys(document.components.schemas)
    expect(names.filter(name => /^(New.+|Any|Dict|List|Optional|Set|Tuple|Union)$/.test(name))).toEqual([])
  })

  test('cannot be made of two different schemas of one name', () => {
    const schemas = {}
    toJsonSchema({ title: 'Task', type: 'object' }, schemas)
    expect(() => toJsonSchema({ title: 'Task', type: 'string' }, schemas)).toThrow(
      'Two schemas are called Task',
    )
  })

  test('says of a choice of texts that may be null that null is one of them', () => {
    const texts = ['a', 'b'].map(text => ({ const: text, type: 'string' }))
    expect(toJsonSchema({ anyOf: [{ anyOf: texts }, { type: 'null' }] }, {})).toEqual({
      type: ['string', 'null'],
      enum: ['a', 'b', null],
    })
  })

  test('names every field of an error, with and without problems', async () => {
    const { Error: common, ValidationFailed: invalid } = document.components.schemas
    expect(Object.keys(common!.properties!)).toEqual(['detail', 'code', 'request_id', 'index'])
    expect(Object.keys(invalid!.properties!)).toEqual(['detail', 'code', 'request_id', 'index', 'body'])
    const always = ['detail', 'code', 'request_id']
    for (const { required } of [common!, invalid!]) expect(required).toEqual(always)
    const answer = (await (await get('/nope')).json()) as object
    expect(Object.keys(answer)).toEqual(always)
  })

  test('says of each status which errors have it, with an example by the code of each', () => {
    const { description, content } = operationOf('POST /api/v1/auth/login').responses[401]!
    expect(description).toBe('Incorrect email or password, or: Could not validate credentials')
    expect(content!['application/json']!.examples).toMatchObject({
      incorrect_login: { value: { code: 'incorrect_login', detail: 'Incorrect email or password' } },
      invalid_token: { value: { code: 'invalid_token', detail: 'Could not validate credentials' } },
    })
  })

  test('requires every field that an answer always has', () => {
    const names =
      'Account ApiToken BatchResult Changes CreatedApiToken Health Problem Profile Session Stats Task Ticket TokenPair TrashedTask'
    for (const name of names.split(' ')) {
      const { properties, required } = document.components.schemas[name]!
      expect([name, required]).toEqual([name, Object.keys(properties!)])
    }
    const { Task, TrashedTask } = document.components.schemas
    expect(TrashedTask!.required).toEqual([...(Task!.required as string[]), 'deleted_at'])
  })

  test('titles every schema with its name', () => {
    for (const [name, { title }] of Object.entries(document.components.schemas)) expect(title).toBe(name)
  })

  test('tells the operations of a batch apart by their op', () => {
    const { Operation, ...schemas } = document.components.schemas
    const { propertyName, mapping } = Operation!.discriminator as {
      propertyName: string
      mapping: Record<string, string>
    }
    expect(propertyName).toBe('op')
    expect(Object.keys(mapping)).toEqual(['create', 'update', 'delete'])
    expect(Operation!.oneOf).toEqual(Object.values(mapping).map($ref => ({ $ref })))
    for (const [op, reference] of Object.entries(mapping)) {
      const variant = schemas[reference.split('/').at(-1)!]!
      expect(variant.properties!.op).toMatchObject({ const: op })
      expect(variant.required).toContain('op')
    }
  })

  test('holds JSON Schema and no trace of the library that checks it', () => {
    const keywords = [
      ...[
        'type',
        'format',
        'const',
        'enum',
        'pattern',
        '$ref',
        'anyOf',
        'oneOf',
        'discriminator',
        'items',
        'properties',
        'required',
      ],
      ...['minimum', 'maximum', 'minLength', 'maxLength', 'minItems', 'maxItems', 'uniqueItems'],
      // No `default`: openapi-typescript makes such a field required, in requests, too.
      ...['title', 'description', 'examples'],
    ]
    const used = new Set(schemasOf(document).flatMap(({ schema }) => Object.keys(schema)))
    expect([...used].filter(keyword => !keywords.includes(keyword))).toEqual([])
    expect(document.components.schemas.TaskCreate?.properties).toMatchObject({
      title: { type: 'string', minLength: 1, maxLength: 200, pattern: '\\S' },
      description: { type: ['string', 'null'], maxLength: 2000 },
      status: { type: 'string', enum: ['pending', 'in_progress', 'completed'] },
    })
    expect(document.components.schemas.Registration?.properties).toMatchObject({
      password: { type: 'string', format: 'password', minLength: 8, maxLength: 72 },
    })
  })

  const withBody = routes.filter(({ hooks }) => hooks.body)
  test.each(withBody)('shows an example for $name that its own schema takes', ({ name, hooks }) => {
    const { examples } = hooks.body!
    expect(examples).not.toBeEmpty()
    for (const example of examples) expect([...Value.Errors(hooks.body!, example)]).toEqual([])

    const contents = Object.values(operationOf(name).requestBody!.content)
    for (const { example } of contents) expect(example).toEqual(examples[0])
  })

  test.each(withBody)('shows for the fields of $name examples that its own schema takes', ({ hooks }) => {
    for (const [field, schema] of Object.entries<TSchema>(hooks.body!.properties ?? {}))
      for (const example of toJsonSchema(schema, {}).examples ?? [])
        expect([field, example, ...Value.Errors(schema, example)]).toEqual([field, example])
  })

  test.each(routes)('shows errors of $name that cost no request a check', ({ hooks }) => {
    expect(Object.keys(hooks.response ?? {}).filter(status => Number(status) >= 400)).toEqual([])
  })

  test.each(routes)('shows examples of answers of $name that are possible', ({ name, hooks }) => {
    for (const [status, schema] of Object.entries(allResponses(hooks.response!))) {
      for (const { example, examples } of Object.values(operationOf(name).responses[status]!.content ?? {})) {
        const values = examples ? Object.values(examples).map(({ value }) => value) : [example]
        for (const value of values) {
          if (value !== undefined)
            expect([...Value.Errors((schema.jsonOf ?? schema) as TSchema, value)]).toEqual([])
        }
      }
    }
  })

  test('is the same from the command, which needs no database and no settings', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'todo-api-openapi-'))
    try {
      const main = join(import.meta.dir, '../src/main.ts')
      const command = Bun.spawn([process.execPath, main, 'openapi'], {
        cwd: folder,
        env: {},
        stderr: 'inherit',
      })
      expect(await command.stdout.json()).toEqual(document)
      expect(await command.exited).toBe(0)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  test('is the same when it is made after other requests', async () => {
    const used = appWithoutDatabase()
    for (const { method, path } of operations)
      await used.handle(new Request(`http://localhost${path}`, { method }))

    const response = await used.handle(new Request('http://localhost/openapi.json'))

    expect(await response.json()).toEqual(document)
  })

  test('is not sent again to a client that has it', async () => {
    const { headers } = await get('/openapi.json')
    const etag = headers.get('etag')!
    expect(headers.get('cache-control')).toBe('no-cache')
    expect(headers.get('content-type')).toBe('application/json')

    // A proxy that compresses makes the tag weak.
    for (const tag of [etag, `W/${etag}`, `"x", ${etag}`, '*']) {
      const again = await get('/openapi.json', { 'if-none-match': tag })
      expect([again.status, await again.text(), again.headers.get('etag')]).toEqual([304, '', etag])
    }
    expect((await get('/openapi.json', { 'if-none-match': '"x"' })).status).toBe(200)
  })
})

describe('the Swagger page', () => {
  test('takes everything from this service, under a policy that allows nothing else', async () => {
    const response = await get('/docs')
    const page = await response.text()

    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8')
    const policy = response.headers.get('content-security-policy')
    expect(policy?.split('; ')).toEqual([
      "default-src 'none'",
      "script-src 'self'",
      "style-src 'self'",
      "img-src 'self' data:",
      "connect-src 'self'",
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
    ])
    expect(response.headers.get('cache-control')).toBe('no-cache')
    expect(page).not.toMatch(/https?:|<style|<script>| on\w+=/)
    expect(page).toContain('<title>todo-api</title>')
    expect(page).toStartWith('<!doctype html>\n<html lang="en">')
    for (const name of ['charset="utf-8"', 'name="viewport"', 'rel="icon"', '<noscript>'])
      expect(page).toContain(name)
  })

  test('has files that a browser keeps, at addresses that change with them', async () => {
    const page = await (await get('/docs')).text()
    const addresses = [...page.matchAll(/(?:src|href)="(\/docs\/assets\/[^"]+)"/g)].map(([, path]) => path!)

    expect(addresses).toHaveLength(5)
    for (const address of addresses) {
      const response = await get(address)
      expect(response.status).toBe(200)
      expect(response.headers.get('cache-control')).toBe('public, max-age=31536000, immutable')
      const types = { js: 'text/javascript', css: 'text/css', png: 'image/png' }
      const type = types[address.split('.').at(-1) as keyof typeof types]
      expect(response.headers.get('content-type')).toStartWith(type)
      expect((await response.bytes()).length).toBeGreaterThan(20)
      expect((await get(address.replace(/assets\/\w+/, 'assets/old'))).status).toBe(404)
    }
    const unknown = await get(addresses[0]!.replace(/[^/]+$/, 'constructor'))
    expect([unknown.status, await unknown.json()]).toMatchObject([404, { code: 'not_found' }])
  })

  test('sends nothing to another host, has addresses for its parts, and keeps who is signed in', async () => {
    const page = await (await get('/docs')).text()
    const [start] = /\/docs\/assets\/\w+\/start\.js/.exec(page)!
    const script = await (await get(start)).text()
    let settings: unknown
    const bundle = (given: unknown) => {
      settings = given
    }
    const browser = { matches: false, addEventListener() {}, documentElement: { classList: { toggle() {} } } }

    new Function('SwaggerUIBundle', 'matchMedia', 'document', script)(bundle, () => browser, browser)

    expect(settings).toMatchObject({
      url: '/openapi.json',
      deepLinking: true,
      displayRequestDuration: true,
      tryItOutEnabled: true,
      persistAuthorization: true,
      validatorUrl: null,
    })
  })

  test.each([
    ['/', '/docs'],
    ['/swagger', '/docs'],
    ['/swagger/json', '/openapi.json'],
  ])('is found from %s', async (from, to) => {
    const response = await get(from)
    expect([response.status, response.headers.get('location')]).toEqual([302, to])
  })

  test('does not mind a slash at the end', async () => {
    expect((await get('/docs/')).status).toBe(200)
    expect((await get('/openapi.json/')).status).toBe(200)
  })
})

describe('the guides', () => {
  const hrefs = (page: string) => [...page.matchAll(/<a href="([^"]*)"/g)].map(([, href]) => href!)

  test('are all of docs/ but the one for developers, with links only to what is there', async () => {
    const files = [...new Bun.Glob('*.md').scanSync(join(import.meta.dir, '../docs'))]
    const names = files.filter(file => file !== 'architecture.md').sort()
    const known = ['/docs', '/docs/guides', ...names]

    const list = await (await get('/docs/guides')).text()
    const listed = hrefs(list)
    const titles = [...list.matchAll(/<li><a [^>]*>(.+)<\/a>/g)].map(([, title]) => title)
    expect(list).toContain('<h1>Guides</h1>')
    expect(listed.slice(2)).toEqual(names.map(name => `/docs/guides/${name}`))
    const pages = new Map<string, string>()
    for (const name of names) pages.set(name, await (await get(`/docs/guides/${name}`)).text())
    expect([...pages.values()].map(page => /<h1[^>]*>(.+)<\/h1>/.exec(page)?.[1])).toEqual(titles)
    for (const [name, page] of pages) {
      expect(page).not.toContain('<img')
      expect(/<title>(.+) – todo-api<\/title>/.exec(page)?.[1]).toBe(/<h1[^>]*>(.+)<\/h1>/.exec(page)?.[1])
      const dead = hrefs(page).filter(href => {
        const [file = '', heading] = href.split('#')
        const isKnown = file === '' || known.includes(file)
        const target = pages.get(file || name)
        return !href.startsWith('http') && !(isKnown && (!heading || target?.includes(`id="${heading}"`)))
      })
      expect([name, dead]).toEqual([name, []])
    }
    expect(await (await get('/docs/guides/mcp.md')).text()).toContain(
      '<a href="https://modelcontextprotocol.io">',
    )
  })

  test.each(['architecture.md', 'constructor', '..%2FREADME.md'])('there is none called %s', async name => {
    expect((await get(`/docs/guides/${name}`)).status).toBe(404)
  })
})

/** Every example of the document, with the schema that it is an example of. */
function examplesOf(document: OpenApiDocument) {
  const ofSchemas = schemasOf(document).map(({ place, schema }) => ({
    place,
    schema,
    examples: schema.examples ?? [],
  }))
  const ofBodies = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).flatMap(([method, { requestBody, responses }]) =>
      [requestBody, ...Object.values(responses)].flatMap(part =>
        Object.values(part?.content ?? {}).map(({ schema, example, examples = {} }) => ({
          place: `${method} ${path}`,
          schema,
          examples: [
            ...(example === undefined ? [] : [example]),
            ...Object.values(examples).map(({ value }) => value),
          ],
        })),
      ),
    ),
  )
  const ofHeaders = Object.entries(document.components.headers as Record<string, { schema: Schema }>).map(
    ([place, { schema }]) => ({ place, schema, examples: schema.examples ?? [] }),
  )
  return [...ofSchemas, ...ofBodies, ...ofHeaders]
}

interface Placed {
  place: string
  schema: Schema
}

const isNamed = (place: string) => /^components\.schemas\.\w+$/.test(place)

type Operation = OpenApiDocument['paths'][string][string]

/** Every schema in the document, at any depth, and where it stands. */
function schemasOf({ components, paths }: OpenApiDocument): Placed[] {
  const ofOperation = (name: string, { parameters, requestBody, responses }: Operation): Placed[] => [
    ...(parameters ?? []).map(({ schema }, i) => ({ place: `${name} parameter ${i}`, schema })),
    ...Object.values(requestBody?.content ?? {}).map(({ schema }) => ({ place: `${name} body`, schema })),
    ...Object.entries(responses).flatMap(([status, { content }]) =>
      Object.values(content ?? {}).map(({ schema }) => ({ place: `${name} ${status}`, schema })),
    ),
  ]
  return [
    ...Object.entries(components.schemas).map(([name, schema]) => ({
      place: `components.schemas.${name}`,
      schema,
    })),
    ...Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).flatMap(([method, operation]) => ofOperation(`${method} ${path}`, operation)),
    ),
  ].flatMap(withParts)
}

function withParts({ place, schema }: Placed): Placed[] {
  const { properties = {}, items, anyOf = [], oneOf = [] } = schema
  const parts = [
    ...Object.entries(properties).map(([name, schema]) => ({ place: `${place}.${name}`, schema })),
    ...[...(items ? [items] : []), ...anyOf, ...oneOf].map((schema, i) => ({
      place: `${place}[${i}]`,
      schema,
    })),
  ]
  return [{ place, schema }, ...parts.flatMap(withParts)]
}
