import { afterAll, beforeAll, describe, expect, spyOn, test } from 'bun:test'
import { type TSchema, Type } from '@sinclair/typebox'
import { TypeCompiler } from '@sinclair/typebox/compiler'
import { type AnyElysia, Elysia, t } from 'elysia'
import fc from 'fast-check'
import { body } from '../src/http/body.ts'
import { errorHandler } from '../src/http/error-handler.ts'
import { createCheck, findProblems } from '../src/http/problems.ts'
import { requestLog } from '../src/http/request-log.ts'
import { instantInput, nullable, oneOf, text, uuidInput } from '../src/http/schema.ts'
import { unknownNames } from '../src/http/unknown-names.ts'
import { AppError } from '../src/lib/errors.ts'
import { email, withinYear } from '../src/modules/auth/model.ts'
import { checkArguments } from '../src/modules/mcp/tool-schema.ts'
import { createLog } from '../src/telemetry/log.ts'
import { leastCpuMs, turnsUntil } from './support/cpu.ts'
import { withEffort } from './support/effort.ts'
import {
  type Client,
  client,
  onBothDatabases,
  type Service,
  startService,
  type User,
} from './support/harness.ts'
import { until } from './support/until.ts'
import { allRoutes, exchange, expectError, openConnection, send } from './support/wire.ts'

const json = 'Content-Type: application/json'
/** A body of this size that is read in one go, and refused. */
const flat = (bytes: number) => `{"title":"${'x'.repeat(bytes - 12)}"}`
const form = 'Content-Type: application/x-www-form-urlencoded'
const nowhere = '00000000-0000-4000-8000-000000000000'
const soon = instantInput({ problem: withinYear })

describe('over the wire', () => {
  const api = {} as Service
  const ada = {} as User
  beforeAll(async () => {
    Object.assign(api, await startService('postgres'))
    Object.assign(ada, await api.user())
  }, 30_000)
  afterAll(() => api.stop?.())

  /** A POST to /tasks as Ada. */
  const post = (content: string | Uint8Array, headers = [json], chunkBytes = 0) =>
    send(api.url, {
      line: 'POST /api/v1/tasks',
      headers: [`Authorization: Bearer ${ada.token}`, ...headers],
      body: content,
      ...(chunkBytes && { chunkBytes }),
    })

  test.each([
    '/nope',
    '/api',
    '/api/v1',
    '/api/v2/tasks',
    '/API/v1/tasks',
    '/api/v1/tasksx',
    '/health/nope',
    '/%00',
    '/%ZZ',
    '/api/v1/tasks/1/2',
    '/api/v1/auth/tokens//',
    '//health',
    '/..%2f..%2fetc/passwd',
    '/.env',
    '/openapi_json',
    '/api/v1/__proto__',
  ])('there is no address %p', async path => {
    for (const method of ['GET', 'POST', 'DELETE']) {
      const answer = await send(api.url, { line: `${method} ${path}` })
      expectError(answer, 404, 'not_found', 'Not Found')
    }
  })

  test.each([
    ['/health', 'GET, HEAD'],
    ['/health/ready/', 'GET, HEAD'],
    ['/docs', 'GET, HEAD'],
    ['/openapi.json', 'GET, HEAD'],
    ['/', 'GET, HEAD'],
    ['/api/v1/auth/login', 'POST'],
    ['/api/auth/register/', 'POST'],
    ['/api/v1/tasks', 'GET, HEAD, POST'],
    ['/api/tasks/', 'GET, HEAD, POST'],
    [`/api/v1/tasks/${nowhere}`, 'DELETE, GET, HEAD, PATCH, PUT'],
    ['/api/v1/tasks/nonsense/', 'DELETE, GET, HEAD, PATCH, PUT'],
    ['/api/v1/tasks/stats', 'GET, HEAD'],
    ['/api/v1/tasks/batch', 'POST'],
    ['/api/tasks/trash/', 'DELETE, GET, HEAD'],
  ])('%s answers only %s', async (path, allowed) => {
    const others = [
      'GET',
      'HEAD',
      'POST',
      'PUT',
      'PATCH',
      'DELETE',
      'TRACE',
      'PROPFIND',
      'CONNECT',
      'MKCOL',
      'LOCK',
    ]
    for (const method of others.filter(method => !allowed.split(', ').includes(method))) {
      const answer = await send(api.url, { line: `${method} ${path}` })
      expect(answer.status).toBe(405)
      expect(answer.headers.get('allow')).toBe(allowed)
      if (method !== 'HEAD') expectError(answer, 405, 'method_not_allowed', 'Method Not Allowed')
    }
  })

  test('a fixed name under /tasks is not a task’s id, whatever the method', async () => {
    for (const json of [{ title: 'x' }, {}, undefined]) {
      const answer = await api.put('/tasks/stats', { token: ada.token, json })
      expectError(answer, 405, 'method_not_allowed', 'Method Not Allowed')
      expect(answer.headers.get('allow')).toBe('GET, HEAD')
    }
    expect((await api.delete('/tasks/batch', { token: ada.token })).status).toBe(405)
  })

  test('a slash at the end of an address changes nothing', async () => {
    const task = await api.task(ada)
    for (const path of [
      '/health',
      '/health/live',
      '/health/ready',
      '/api/v1/users/me',
      '/api/tasks',
      `/api/tasks/${task.id}`,
    ]) {
      const plain = await api.get(api.url + path, { token: ada.token })
      const slashed = await api.get(`${api.url}${path}/`, { token: ada.token })
      expect(plain.status).toBe(200)
      expect([slashed.status, slashed.body]).toEqual([200, plain.body])
    }
    for (const path of ['/docs', '/openapi.json', '/swagger']) {
      const plain = await api.get(api.url + path)
      const slashed = await api.get(`${api.url}${path}/`)
      expect([slashed.status, slashed.body]).toEqual([plain.status, plain.body])
    }
  })

  test('GET is answered the same whatever body comes with it', async () => {
    for (const [type, body] of [
      [json, '{'],
      ['Content-Type: text/plain', 'x'],
    ] as const) {
      const headers = [`Authorization: Bearer ${ada.token}`, type]
      for (const path of ['/tasks', '/lists', '/users/me', '/auth/sessions', '/tasks/nonsense'])
        expect([path, (await send(api.url, { line: `GET /api/v1${path}`, headers, body })).status]).toEqual([
          path,
          path.endsWith('nonsense') ? 404 : 200,
        ])
    }
  })

  test('HEAD answers like GET, without a body', async () => {
    const task = await api.task(ada)
    for (const { path } of allRoutes().filter(route => route.method === 'GET')) {
      // Its GET has no end (events.test.ts).
      if (path.endsWith('/events')) continue
      const address = api.url + path.replace(':id', task.id)
      const get = await api.get(address, { token: ada.token })
      const head = await api.request('HEAD', address, { token: ada.token })
      expect([path, head.status, head.body]).toEqual([path, get.status, undefined])
      expect(head.headers.get('content-type')).toBe(get.headers.get('content-type'))
    }
  })

  test.each([
    ['{', 'json_invalid'],
    ['{"title":"x"} and more', 'json_invalid'],
    ["{'title':'x'}", 'json_invalid'],
    ['NaN', 'json_invalid'],
    ['title=x', 'json_invalid'],
    ['', 'missing'],
    ['null', 'missing'],
    ['[]', 'object_type'],
    ['[{"title":"x"}]', 'object_type'],
    ['"x"', 'object_type'],
    ['5', 'object_type'],
    ['true', 'object_type'],
    ['['.repeat(17) + ']'.repeat(17), 'json_too_deep'],
    [`{"title":${'['.repeat(16)}${']'.repeat(16)},"x":[]}`, 'json_too_deep'],
  ])('a body %p is refused', async (content, type) => {
    const answer = await post(content)

    expectError(answer, 422, 'validation_failed', [{ loc: ['body'], msg: expect.any(String), type }])
  })

  test('brackets in a text do not count as nesting, and 16 levels are taken', async () => {
    const inText = await post(JSON.stringify({ title: '['.repeat(100), x: '\\"[{' }))
    const afterQuote = await post(JSON.stringify({ title: `a "${'['.repeat(30)}` }))
    const deep = await post(`{"title":"x","unknown":${'['.repeat(15)}${']'.repeat(15)}}`)

    expect([inText.status, afterQuote.status, deep.status]).toEqual([201, 201, 201])
  })

  test('a list is refused as the change of a task, although no field is required', async () => {
    const task = await api.task(ada)
    const answer = await api.patch(`/tasks/${task.id}`, { token: ada.token, json: [] })

    expectError(answer, 422, 'validation_failed', [
      { loc: ['body'], msg: 'Input should be an object', type: 'object_type' },
    ])
  })

  test.each([
    ['1e999', 'string_type'],
    ['9223372036854775808', 'string_type'],
    ['null', 'string_type'],
    ['["x"]', 'string_type'],
    ['{}', 'string_type'],
    ['"a\\u0000"', 'string_unicode'],
    ['"\\ud800"', 'string_unicode'],
    ['"\\udfff\\ud83e"', 'string_unicode'],
  ])('a title %s is refused', async (title, type) => {
    const answer = await post(`{"title":${title}}`)

    expectError(answer, 422, 'validation_failed', [{ loc: ['body', 'title'], msg: expect.any(String), type }])
  })

  test('bytes that are no UTF-8 are refused', async () => {
    for (const bytes of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xe2, 0x82]]) {
      const title = Buffer.concat([Buffer.from('{"title":"'), Buffer.from(bytes), Buffer.from('"}')])
      const password = Buffer.concat([Buffer.from('username=a&password='), Buffer.from(bytes)])
      const signIn = { line: 'POST /api/v1/auth/login', headers: [form], body: password }
      for (const answer of [await post(title), await send(api.url, signIn)])
        expectError(answer, 422, 'validation_failed', [
          { loc: ['body'], msg: 'Body is not valid UTF-8', type: 'encoding_invalid' },
        ])
    }
  })

  test.each([
    'text/plain',
    'application/xml',
    'multipart/form-data; boundary=x',
    'application/octet-stream',
    'garbage',
    'application/vnd.api+json',
    // Any page may post a form without asking first (CORS): only a sign-in takes one.
    'application/x-www-form-urlencoded',
  ])('a body of type %s is refused', async type => {
    const answer = await post('{"title":"x"}', [`Content-Type: ${type}`])

    expectError(
      answer,
      415,
      'unsupported_media_type',
      'Send JSON with the header Content-Type: application/json',
    )
  })

  test.each(['login', 'refresh', 'revoke'])('/auth/%s names both types that it takes', async call => {
    const answer = await send(api.url, {
      line: `POST /api/v1/auth/${call}`,
      headers: ['Content-Type: text/plain'],
      body: 'token=x',
    })

    expectError(
      answer,
      415,
      'unsupported_media_type',
      'Send a form or JSON with the header Content-Type: application/x-www-form-urlencoded or application/json',
    )
  })

  test('JSON that curl -d sends as a form is refused with what to send, and not repeated', async () => {
    const body = '{"email":"a@example.com","username":"a@example.com","password":"geheim und lang"}'
    for (const [call, space] of [
      ['register', ''],
      ['login', '\n '],
      ['refresh', ''],
    ]) {
      const answer = await send(api.url, {
        line: `POST /api/v1/auth/${call}`,
        headers: ['Content-Type: application/x-www-form-urlencoded'],
        body: space + body,
      })

      expectError(
        answer,
        415,
        'unsupported_media_type',
        'The body is JSON but sent as application/x-www-form-urlencoded: send the header Content-Type: application/json',
      )
      expect(JSON.stringify(answer.body)).not.toContain('geheim')
    }
  })

  test('a compressed body is refused; JSON may have a charset, any case, or no type at all', async () => {
    const compressed = await Promise.all([
      post(Bun.gzipSync('{"title":"x"}'), [json, 'Content-Encoding: gzip']),
      post(Bun.deflateSync('{"title":"x"}'), [json, 'Content-Encoding: deflate']),
      ...['br', 'zstd', 'identity, gzip'].map(name =>
        post('{"title":"x"}', [json, `Content-Encoding: ${name}`]),
      ),
    ])
    const statuses = await Promise.all(
      [
        ['Content-Type: APPLICATION/JSON; charset=UTF-8'],
        ['Content-Type: application/json;charset=utf-8'],
        ['Content-Type: application/json ; charset=utf-8'],
        [],
        [json, 'Content-Encoding: Identity'],
      ].map(async headers => (await post('{"title":"x"}', headers)).status),
    )

    for (const answer of compressed) {
      expectError(answer, 415, 'unsupported_media_type', 'Send the body without Content-Encoding')
    }
    expect(statuses).toEqual([201, 201, 201, 201, 201])
  })

  test('JSON may begin with the byte order mark that Windows editors and shells write', async () => {
    const { status, body } = await post('\ufeff{"title":"Buy milk"}')

    expect([status, body.title]).toEqual([201, 'Buy milk'])
  })

  test('a body of 32 KiB is taken, one byte more is 413, announced or not', async () => {
    const whole = JSON.stringify({ title: 'x' }).padStart(32 * 1024)

    expect((await post(whole)).status).toBe(201)
    expect((await post(whole, [json], 5000)).status).toBe(201)
    expectError(await post(`${whole} `), 413, 'body_too_large', 'Request body too large')
    expectError(await post(`${whole} `, [json], 5000), 413, 'body_too_large', 'Request body too large')
  })

  test('a body of 64 MB is turned away at once and not kept', async () => {
    const before = process.memoryUsage.rss()
    const megabyte = new Uint8Array(1024 * 1024).fill(0x78)
    let sent = 0
    const endless = new ReadableStream({
      pull(controller) {
        if (++sent > 64) controller.close()
        else controller.enqueue(megabyte)
      },
    })

    const answer = await api.post('/tasks', {
      token: ada.token,
      raw: endless,
      headers: { 'content-type': 'application/json' },
    })

    const announced = await api.post('/tasks', {
      token: ada.token,
      raw: new Uint8Array(8 * 1024 * 1024),
      headers: { 'content-type': 'application/json' },
    })

    for (const refused of [answer, announced]) expectError(refused, 413, 'body_too_large')
    expect(process.memoryUsage.rss() - before).toBeLessThan(48 * 1024 * 1024)
    expect((await api.get('/health')).status).toBe(200)
  })

  test('nesting 32,000 deep keeps no client waiting', async () => {
    const texts = [
      '['.repeat(32_000),
      '{"a":'.repeat(6000),
      `{"title":"x","y":${'['.repeat(16_000)}${']'.repeat(16_000)}}`,
    ]
    for (const content of texts) {
      const least = await leastCpuMs(
        {
          nested: async () => expectError(await post(content), 422, 'validation_failed'),
          flat: async () => expectError(await post(flat(content.length)), 422, 'validation_failed'),
        },
        5,
      )
      expect(least.nested).toBeLessThan(20 * least.flat!)
    }
  })

  test('a batch of 200,000 values keeps no client waiting', async () => {
    const texts = [`{"operations":[${Array(200_000).fill('{}')}]}`, `[${Array(200_000).fill('1')}]`]
    for (const content of texts) {
      const headers = [json, `Authorization: Bearer ${ada.token}`]
      const batch = (body: string) => send(api.url, { line: 'POST /api/v1/tasks/batch', headers, body })
      const least = await leastCpuMs(
        {
          many: async () => expectError(await batch(content), 413, 'body_too_large'),
          flat: async () => expectError(await batch(flat(content.length)), 422, 'validation_failed'),
        },
        5,
      )
      expect(least.many).toBeLessThan(20 * least.flat!)
    }
  })

  test('a list of thousands of mistakes keeps no client waiting and is not listed to its end', async () => {
    const headers = [`Authorization: Bearer ${ada.token}`]
    const ask = async (mistakes: number) => {
      const query = Array(mistakes).fill('status=x').join('&')
      const answer = await send(api.url, { line: `GET /api/v1/tasks?${query}`, headers })
      expectError(answer, 422, 'validation_failed')
      expect(answer.body.detail.length).toBeLessThanOrEqual(100)
    }

    const least = await leastCpuMs({ few: () => ask(100), many: () => ask(1000) }, 5)

    expect(least.many).toBeLessThan(30 * least.few!)
  })

  /**
   * What two parts of a connection cost the service, the second sent a moment after the first. The client is another process:
   * in this one it would send each time that the service waits.
   */
  async function costOf(first: string, second: [text: string, times: number]) {
    const script = `
      const [hostname, port, first, text, times, end] = process.argv.slice(1)
      const socket = require('node:net').connect(port, hostname)
      socket.write(first)
      setTimeout(() => socket.write(text.repeat(times) + end), 50)
      socket.on('data', data => process.stdout.write(data)).on('error', () => {})`
    const { hostname, port } = new URL(api.url)
    const [text, times] = second
    const args = [hostname, port, first, text, String(times), '0\r\n\r\n']
    const client = Bun.spawn([process.execPath, '-e', script, ...args], { stdout: 'pipe' })
    const answer = new Response(client.stdout).text()
    return { ...(await turnsUntil(answer)), answer: await answer }
  }

  test('a body in chunks of one byte keeps no client waiting', async () => {
    const head = [
      'POST /api/v1/tasks/batch HTTP/1.1',
      `Authorization: Bearer ${ada.token}`,
      'Host: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n',
    ]
    const { all, longest, answer } = await costOf(head.join('\r\n'), ['1\r\n \r\n', 500_000])

    expect(answer).toStartWith('HTTP/1.1 422')
    expect(longest).toBeLessThan(all / 2)
  })

  test('thousands of requests in one packet keep no client waiting', async () => {
    const request = 'GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n'
    const { answer } = await costOf(request, [request, 10_000])

    expect(answer.split('HTTP/1.1 404').length - 1).toBeWithin(1, 502)
  })

  test('a thousand lists in an address keep no client waiting', async () => {
    const headers = [`Authorization: Bearer ${ada.token}`]
    const ask = async (brackets: string) => {
      const query = Array.from({ length: 1000 }, (_, i) => `name${i}${brackets}=1`).join('&')
      expectError(
        await send(api.url, { line: `GET /api/v1/tasks?${query}`, headers }),
        422,
        'validation_failed',
      )
    }

    const least = await leastCpuMs({ lists: () => ask('[]'), others: () => ask('') }, 5)

    expect(least.lists).toBeLessThan(5 * least.others!)
  })

  test('what was sent is repeated, unknown fields and all, with every secret masked', async () => {
    const sent = {
      status: 'bad',
      title: 5,
      password: 'geheim',
      unknown: [
        { new_password: 'geheim', refresh_token: ['geheim'] },
        { deep: { client_secret: 'geheim', current_password: 1 } },
      ],
    }

    const answer = await post(JSON.stringify(sent))

    expectError(answer, 422, 'validation_failed')
    expect(answer.body.detail.map((problem: { loc: string[] }) => problem.loc.join('.'))).toEqual([
      'body.title',
      'body.status',
    ])
    const masked = '********'
    expect(answer.body.body).toEqual({
      ...sent,
      password: masked,
      unknown: [
        { new_password: masked, refresh_token: masked },
        { deep: { client_secret: masked, current_password: masked } },
      ],
    })
  })

  test('keys that name a prototype are ordinary keys', async () => {
    const refused = await post('{"__proto__":{"title":"x"},"constructor":{"prototype":{"title":"x"}}}')
    const made = await post('{"title":"x","__proto__":{"status":"completed","polluted":1},"toString":1}')
    const login = await send(api.url, {
      line: 'POST /api/v1/auth/login',
      headers: [form],
      body: '__proto__=1&constructor=2&username=a&password=b',
    })

    expectError(refused, 422, 'validation_failed', [
      { loc: ['body', 'title'], msg: 'Field required', type: 'missing' },
    ])
    expect(JSON.stringify(refused.body.body)).toContain('__proto__')
    expect([made.status, made.body.status]).toEqual([201, 'pending'])
    expectError(login, 401, 'incorrect_login')
    expect(({} as Record<string, unknown>).polluted).toBeUndefined()
  })

  test('a field that a form holds twice is refused; of one that an object holds twice, the last one counts', async () => {
    const fields = `username=${encodeURIComponent(ada.email)}&password=wrong&password=correct+horse`
    const login = await send(api.url, { line: 'POST /api/v1/auth/login', headers: [form], body: fields })

    expectError(login, 422, 'validation_failed', [
      { loc: ['body', 'password'], msg: 'Should come only once', type: 'repeated' },
    ])
    expect(JSON.stringify(login.body)).not.toContain('horse')
    expect((await post('{"title":"x","title":"y"}')).body.title).toBe('y')
  })

  test('broken percent-encoding is text like any other', async () => {
    const headers = [`Authorization: Bearer ${ada.token}`]
    const get = (path: string) => send(api.url, { line: `GET ${path}`, headers })

    expectError(await get('/api/v1/tasks/%ZZ'), 404, 'task_not_found')
    expectError(await get('/api/v1/tasks/%E0%A4%A'), 404, 'task_not_found')
    expectError(await get('/api/v1/tasks/%00'), 404, 'task_not_found')
    expectError(await get('/api/v1/tasks/a%2Fb'), 404, 'task_not_found')
    expectError(await get('/api/v1/tasks?limit=%ZZ'), 422, 'validation_failed')
    expectError(await get('/api/v1/tasks?status=%00'), 422, 'validation_failed')
    expectError(await get('/api/v1/tasks?status=\xff'), 422, 'validation_failed')
    expect((await get('/api/v1/tasks?_%ZZ=%')).status).toBe(200)
    expectError(await get('/api/v1/tasks?%ZZ=%'), 422, 'validation_failed')
  })

  test.each(['%ff', '%80', '%C3', 'a%E2%82b', '%ed%a0%80', '%F4%90%80%80', '%c0%80'])(
    'percent-encoded bytes that are no UTF-8, such as %p, are refused',
    async bytes => {
      const problem = (...loc: string[]) => ({
        loc,
        msg: 'Percent-encoding is not valid UTF-8',
        type: 'encoding_invalid',
      })
      const headers = [`Authorization: Bearer ${ada.token}`]
      const get = (query: string) => send(api.url, { line: `GET /api/v1/tasks?${query}`, headers })
      const sent = (path: string, body: string) =>
        send(api.url, { line: `POST /api/v1/auth/${path}`, headers: [form], body })
      const password = `password=pa%C3%9Fword%20${bytes}`

      for (const query of [`q=${bytes}`, `q=${bytes}&_=?${'x'.repeat(2000)}`])
        expectError(await get(query), 422, 'validation_failed', [problem('query', 'q')])
      expectError(await get(`tag=a&tag=${bytes}&limit=1`), 422, 'validation_failed', [
        problem('query', 'tag'),
      ])
      for (const path of ['login', 'register']) {
        const answer = await sent(path, `username=a%40b.example&email=a%40b.example&${password}`)
        expectError(answer, 422, 'validation_failed', [problem('body', 'password')])
        expect(answer.body.body).toBeNull()
      }
      expectError(await sent('refresh', `refresh_token=${bytes}&x=${bytes}`), 422, 'validation_failed', [
        problem('body', 'refresh_token'),
        problem('body', 'x'),
      ])
      expectError(await api.get(`/tasks?q=${bytes}`), 401, 'not_authenticated')
      expect((await get('q=%EF%BF%BD%C3%A9%f0%9f%a6%86&tag=%ZZ%')).status).toBe(200)
    },
  )

  test.each([
    ['limit=0', 'limit', 'greater_than_equal'],
    ['limit=201', 'limit', 'less_than_equal'],
    ['limit=-1', 'limit', 'greater_than_equal'],
    ['limit=9223372036854775808', 'limit', 'less_than_equal'],
    ['limit=1.5', 'limit', 'int_type'],
    ['limit=x', 'limit', 'int_type'],
    ['limit=', 'limit', 'int_type'],
    ['limit=1e999', 'limit', 'int_type'],
    ['offset=-1', 'offset', 'greater_than_equal'],
    ['status=bogus', 'status', 'literal_error'],
    ['status=', 'status', 'literal_error'],
    ['status=Pending', 'status', 'literal_error'],
  ])('?%s is refused', async (query, name, type) => {
    const answer = await api.get(`/tasks?${query}`, { token: ada.token })

    expectError(answer, 422, 'validation_failed')
    expect(answer.body.detail).toHaveLength(1)
    expect(answer.body.detail[0]).toMatchObject({ type })
    expect(answer.body.detail[0].loc.slice(0, 2)).toEqual(['query', name])
    expect(answer.body.body).toBeNull()
  })

  test('every problem of a query is reported at once', async () => {
    const answer = await api.get('/tasks?limit=0&offset=x&status=a', { token: ada.token })

    expect(answer.body.detail.map((problem: { loc: string[] }) => problem.loc[1])).toEqual([
      'limit',
      'offset',
      'status',
    ])
  })

  test('an address and headers of 12 KB are fine', async () => {
    const long = await send(api.url, {
      line: `GET /health?${'a'.repeat(6000)}`,
      headers: [`X-Long: ${'b'.repeat(6000)}`],
    })

    expect(long.status).toBe(200)
  })

  test('a client without a token is answered 401 before anything else, whatever is sent and however much', async () => {
    const bodies = ['{', '[]', '\xff', 'x'.repeat(40_000), '['.repeat(32_000)]
    for (const content of bodies) {
      for (const type of [json, 'Content-Type: text/plain', form]) {
        const answer = await send(api.url, {
          line: 'POST /api/v1/tasks?limit=x',
          headers: [type],
          body: content,
        })
        expectError(answer, 401, 'not_authenticated', 'Not authenticated')
      }
    }
    expectError(await api.get('/tasks?limit=x&status=y'), 401, 'not_authenticated')
    expectError(await api.patch('/tasks/nonsense', { json: { title: 5 } }), 401, 'not_authenticated')
    // Announced and never sent: the service does not wait for it.
    const unsent = await send(api.url, {
      line: 'POST /api/v1/tasks',
      headers: [json, 'Content-Length: 1000'],
    })
    expectError(unsent, 401, 'not_authenticated')
  })

  test('no answer overtakes its body, or a proxy would send the next request into it', async () => {
    const head = (line: string, length: number) =>
      Buffer.from(`${line} HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\n\r\n`)
    const { write, received, close } = openConnection(api.url)
    write(Buffer.concat([head('POST /api/v1/tasks', 6), Buffer.from('abc')]))
    await Bun.sleep(200)
    expect(received()).toBe('')
    write('def')
    await until(() => received().includes('not_authenticated'))
    write('GET /health HTTP/1.1\r\nHost: x\r\n\r\n')
    await until(() => received().includes('healthy'))
    close()
    expect(received()).not.toMatch(/^connection:/im)

    // What is not read ends the connection; so does what Bun takes for a tunnel, or refuses itself.
    const chunks = (...lines: string[]) =>
      Buffer.from(['POST /x HTTP/1.1', 'Host: x', 'Transfer-Encoding: chunked', '', ...lines].join('\r\n'))
    const closed = await Promise.all([
      exchange(api.url, Buffer.concat([head('GET /health', 6), Buffer.from('abc')])),
      exchange(api.url, Buffer.concat([head('POST /nowhere', 2 ** 24), Buffer.alloc(2 ** 20 + 1)])),
      exchange(api.url, Buffer.from('CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n')),
      exchange(api.url, chunks('1', 'x', '0', 'trailer: x', '', '')),
    ])
    for (const text of closed) {
      expect(text).toMatch(/^connection: close/im)
      expect(text.match(/^HTTP\/1\.1 /gm)).toHaveLength(1)
    }
  })

  test('a chunked body ends the connection, too, since Bun answers a trailer that comes later', async () => {
    const lines = ['POST /api/v1/tasks HTTP/1.1', 'Host: x', `Authorization: Bearer ${ada.token}`]
    const { write, received, closed } = openConnection(api.url)
    const chunk = '{"title":"Buy milk"}'
    write(
      [...lines, 'Transfer-Encoding: chunked', '', chunk.length.toString(16), chunk, '0', ''].join('\r\n'),
    )
    await until(() => received().includes('Buy milk'))
    write('trailer: x\r\n\r\n')
    await closed

    expect(received()).toMatch(/^HTTP\/1\.1 201 /)
    expect(received()).toMatch(/^connection: close/im)
    expect(received().match(/HTTP\/1/g)).toHaveLength(1)
  })

  test('a chunked body that is too large is answered at its end, and of sixteen stalled ones at most at once', async () => {
    const lines = ['POST /api/v1/tasks HTTP/1.1', 'Host: x', `Authorization: Bearer ${ada.token}`]
    const { write, received, close } = openConnection(api.url)
    const chunk = `8000\r\n${'x'.repeat(0x8000)}\r\n`
    write(`${lines.join('\r\n')}\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}${chunk}`)
    await Bun.sleep(200)
    expect(received()).toBe('')
    write('0\r\n\r\n')
    await until(() => received().includes('body_too_large'))
    close()

    const stalled = Buffer.from('POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n')
    const began = performance.now()
    const waits = await Promise.all(
      Array.from({ length: 20 }, async () => {
        expect(await exchange(api.url, stalled)).toContain('not_authenticated')
        return performance.now() - began
      }),
    )
    expect(waits.filter(ms => ms > 1900)).toHaveLength(16)
  })

  test('X-Request-Id is on every answer, and a safe one of the client is kept', async () => {
    for (const path of ['/health', '/nope', '/docs', '/openapi.json', '/api/v1/tasks', '/']) {
      const own = await api.get(api.url + path)
      const taken = await api.get(api.url + path, { headers: { 'x-request-id': 'Trace-1.2:3_4' } })
      // Version 7: in the order of time.
      expect(own.headers.get('x-request-id')).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}$/)
      expect(taken.headers.get('x-request-id')).toBe('Trace-1.2:3_4')
    }
    const longest = 'x'.repeat(128)
    const { headers } = await api.get(`${api.url}/health`, { headers: { 'x-request-id': longest } })
    expect(headers.get('x-request-id')).toBe(longest)
    for (const id of ['a b', 'a"b', '{}', 'x'.repeat(129), '<script>', 'é']) {
      const answer = await send(api.url, { line: 'GET /nope', headers: [`X-Request-Id: ${id}`] })
      expectError(answer, 404, 'not_found')
      expect(answer.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
    }
  })

  test('a client that hangs up in the middle of a body is not a failure of ours', async () => {
    const head = `POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\n${json}\r\nAuthorization: Bearer ${ada.token}\r\nX-Request-Id: hung-up\r\nContent-Length: 1000\r\n\r\n{`
    await new Promise<void>(resolve => {
      const { hostname, port } = new URL(api.url)
      Bun.connect({
        hostname,
        port: Number(port),
        socket: {
          open(socket) {
            socket.write(head)
            setTimeout(() => socket.terminate(), 50)
          },
          close: () => resolve(),
          data() {},
        },
      })
    })
    await until(() => api.logs().some(line => line.request_id === 'hung-up'))

    expect(api.logs().filter(line => line.level === 'error')).toEqual([])
    expect((await api.get('/health')).status).toBe(200)
  })
})

describe('in the framework', () => {
  const lines: string[] = []
  const lab = startLab(lines)
  const api: Client = client(lab.server!.url.href.replace(/\/$/, ''), '')
  afterAll(() => lab.stop())

  test('problems of path, query, header and body are reported all at once', async () => {
    const answer = await api.post('/all/x?n=many&flags=no', {
      headers: { 'x-count': 'few' },
      json: { name: '', password: 'geheim' },
    })

    expectError(answer, 422, 'validation_failed')
    expect(answer.body.detail.map((problem: { loc: unknown[] }) => problem.loc)).toEqual([
      ['path', 'id'],
      ['query', 'n'],
      ['query', 'flags', 0],
      ['header', 'x-count'],
      ['body', 'name'],
      ['body', 'age'],
    ])
    expect(answer.body.body).toEqual({ name: '', password: '********' })
  })

  test('no more of a list of mistakes is looked at than an answer may name', () => {
    let looks = 0
    const listOf = (item: unknown) =>
      new Proxy(Array(16_000).fill(item), {
        get(target, name) {
          if (/^\d+$/.test(String(name))) looks++
          return Reflect.get(target, name)
        },
      })
    const strict = new Request('http://todo.example', { headers: { prefer: 'handling=strict' } })

    expect(findProblems({ body: { schema: t.Array(t.String()), value: listOf(1) } }).length).toBeWithin(
      100,
      102,
    )
    const objects = t.Array(t.Object({ known: t.Optional(t.String()) }))
    expect(unknownNames({ body: objects }, strict, listOf({ unknown: 1 }))).toHaveLength(100)
    const address = `http://todo.example/?${Array.from({ length: 500 }, (_, i) => `p${i}=`).join('&')}`
    expect(unknownNames({ query: t.Object({}) }, new Request(address), undefined)).toHaveLength(100)
    expect(() => checkArguments(t.Object({ objects }), { objects: listOf({ unknown: 1 }) })).toThrow()

    expect(looks).toBeLessThan(20_000)
  })

  test('a part of a body is checked by a schema that is compiled once, and not before it is needed', () => {
    const compile = spyOn(TypeCompiler, 'Compile')
    try {
      const check = createCheck(t.Object({ name: text({ minLength: 1 }) }))
      expect(compile).not.toHaveBeenCalled()
      const counts = [{ name: 'x' }, { name: '' }, {}].map(value => check(value).length)

      expect(counts).toEqual([0, 1, 1])
      expect(compile).toHaveBeenCalledTimes(1)
    } finally {
      compile.mockRestore()
    }
  })

  test('a field is secret because its schema says so, wherever it stands', async () => {
    const secrets = {
      pin: 'geheim',
      nested: { codes: ['geheim'], maybe: 'geheim', list: [{ key: 'geheim' }] },
    }

    const answer = await api.post('/secrets', { json: { ...secrets, count: 'x', public: 'seen' } })
    const elsewhere = await api.post('/list', { json: { ...secrets, items: 'x' } })

    const masked = '********'
    const expected = { pin: masked, nested: { codes: masked, maybe: masked, list: [{ key: masked }] } }
    expectError(answer, 422, 'validation_failed')
    expect(answer.body.body).toEqual({ ...expected, count: 'x', public: 'seen' })
    expect(elsewhere.body.body).toEqual({ ...expected, items: 'x' })
    expect(lines.join('')).not.toContain('geheim')
  })

  test.each<[type: string, msg: string, schema: TSchema, value: unknown]>([
    ['missing', 'Field required', text(), undefined],
    ['string_type', 'Input should be a valid string', text(), 5],
    ['string_unicode', 'String must not hold NUL or lone surrogates', text(), '\0'],
    ['string_too_short', 'String should have at least 1 character', text({ minLength: 1 }), ''],
    ['string_too_short', 'String should have at least 2 characters', text({ minLength: 2 }), '🦆'],
    ['string_too_long', 'String should have at most 1 character', text({ maxLength: 1 }), '🦆🦆'],
    ['string_too_long', 'String should have at most 3 bytes of UTF-8', text({ maxBytes: 3 }), 'üü'],
    ['string_blank', 'String should not be blank', text({ notBlank: true }), ' \t'],
    ['string_pattern_mismatch', 'String should be a valid value', text({ pattern: /^a$/ }), 'b'],
    ['string_pattern_mismatch', 'String should be a valid email', email, 'b'],
    ['string_pattern_mismatch', 'String should be an a', text({ pattern: /^a$/, wanted: 'an a' }), 'b'],
    ['uuid', 'Input should be a UUID other than the nil and the max one', uuidInput(), 'b'],
    ['uuid', 'Input should be a UUID other than the nil and the max one', nullable(uuidInput()), 'b'],
    ['uuid', 'Input should be a UUID other than the nil and the max one, or null', nullable(uuidInput()), ''],
    ['datetime_future', 'Input should be in the future', soon, '2020-01-01T00:00:00Z'],
    ['less_than_equal', 'Input should be at most one year ahead', soon, '9999-01-01T00:00:00Z'],
    ['int_type', 'Input should be a whole number', Type.Integer(), 1.5],
    ['greater_than_equal', 'Input should be at least 1', Type.Integer({ minimum: 1 }), 0],
    ['less_than_equal', 'Input should be at most 4', Type.Integer({ maximum: 4 }), 5],
    ['bool_type', 'Input should be true or false', Type.Boolean(), 'true'],
    ['list_type', 'Input should be a list', t.Array(text()), 'a'],
    ['too_short', 'List should have at least 1 items', t.Array(text(), { minItems: 1 }), []],
    ['too_long', 'List should have at most 1 items', t.Array(text(), { maxItems: 1 }), ['a', 'b']],
    ['object_type', 'Input should be an object', t.Object({}), 'a'],
    ['literal_error', "Input should be 'a'", t.Literal('a'), 'b'],
    ['literal_error', "Input should be one of 'a', 'b'", oneOf(['a', 'b']), 'c'],
    ['value_error', 'Input should be valid', t.Never(), 'a'],
  ])('a problem of the type %s is called %p', (type, msg, field, value) => {
    const schema = t.Object({ field })
    expect(findProblems({ body: { schema, value: { field: value } } })).toEqual([
      { loc: ['body', 'field'], msg, type },
    ])
  })

  test('what is right everywhere is answered', async () => {
    const answer = await api.post('/all/7?n=1&flags=yes', {
      headers: { 'x-count': '3' },
      json: { name: 'a', age: 1 },
    })

    expect([answer.status, answer.body]).toEqual([200, { fine: true }])
  })

  test.each(['error', 'text', 'status 200', 'status 404', 'not found', 'validation', 'promise'])(
    'a thrown %s is a 500 that says nothing',
    async what => {
      lines.length = 0

      const answer = await api.get(`/throw/${encodeURIComponent(what)}`)

      expectError(answer, 500, 'internal', 'Internal server error')
      const [logged] = lines.map(line => JSON.parse(line)).filter(line => line.level === 'error')
      expect(logged).toMatchObject({ msg: 'request failed', request_id: answer.body.request_id })
      expect(JSON.stringify(answer.body)).not.toContain('geheim')
      expect(answer.headers.get('x-leak')).toBeNull()
    },
  )

  test('what the service refuses because it is busy is a warning with the reason', async () => {
    lines.length = 0

    expectError(await api.get('/throw/busy'), 503, 'unavailable', 'Service temporarily unavailable')

    const logged = lines.map(line => JSON.parse(line)).find(line => line.msg === 'request refused')
    expect(logged).toMatchObject({ level: 'warn', reason: 'unavailable' })
  })

  test('the log of a thrown error has the stack', async () => {
    lines.length = 0

    await api.get('/throw/error')

    const logged = lines.map(line => JSON.parse(line)).find(line => line.level === 'error')
    expect(logged).toMatchObject({ error: 'TypeError', message: 'broken inside' })
    expect(logged.stack).toContain('errors.test.ts')
  })

  test('an answer that breaks its own schema is a 500, and the log does not repeat it', async () => {
    lines.length = 0

    const answer = await api.get('/mismatch')

    expectError(answer, 500, 'internal', 'Internal server error')
    expect(lines.join('')).toContain('ResponseMismatch')
    expect(lines.join('')).not.toContain('geheim')
  })

  test('a list of 16,000 wrong items keeps no client waiting and is not listed to its end', async () => {
    const send = async (items: number) => {
      const answer = await api.post('/list', { json: { items: Array(items).fill(1) } })
      expectError(answer, 422, 'validation_failed')
      expect(answer.body.detail).toHaveLength(100)
    }

    const least = await leastCpuMs({ few: () => send(1500), many: () => send(15_000) }, 5)

    expect(least.many).toBeLessThan(30 * least.few!)
  })
})

function startLab(lines: string[]) {
  const log = createLog({
    level: 'debug',
    pretty: false,
    write: text => void lines.push(...text.trim().split('\n')),
  })
  const thrown: Record<string, () => unknown> = {
    error: () => new TypeError('broken inside'),
    text: () => 'geheim',
    'status 200': () => ({ status: 200, code: 'geheim', headers: { 'x-leak': 'geheim' } }),
    'status 404': () => Object.assign(new Error('geheim'), { status: 404 }),
    'not found': () => Object.assign(new Error('geheim'), { code: 'NOT_FOUND' }),
    validation: () => Object.assign(new Error('geheim'), { code: 'VALIDATION', type: 'body' }),
    promise: () => Promise.reject(new Error('geheim')),
    busy: () => new AppError('unavailable'),
  }
  let routes: AnyElysia['routes'] = []
  const lab = new Elysia()
    .use(requestLog(log))
    .use(errorHandler(log, () => routes))
    .use(body())
    .post('/all/:id', () => ({ fine: true }), {
      params: t.Object({ id: t.Integer() }),
      query: t.Object({ n: t.Integer(), flags: t.Array(t.Union([t.Literal('yes'), t.Literal('maybe')])) }),
      headers: t.Object({ 'x-count': t.Integer() }),
      body: t.Object({
        name: text({ minLength: 1 }),
        age: Type.Integer(),
        password: t.Optional(text({ format: 'password' })),
      }),
    })
    .post('/list', () => ({}), {
      body: t.Object({ items: t.Array(text({ maxLength: 1 }), { maxItems: 20 }) }),
    })
    .post('/secrets', () => ({}), {
      body: t.Object({
        pin: text({ format: 'password' }),
        count: Type.Integer(),
        nested: t.Object({
          codes: t.Array(text({ format: 'password' })),
          maybe: t.Optional(t.Union([text({ format: 'password' }), t.Null()])),
          list: t.Array(t.Object({ key: text({ format: 'password' }) })),
        }),
      }),
    })
    .get('/throw/:what', async ({ params }) => {
      throw await thrown[decodeURIComponent(params.what)]!()
    })
    .get('/mismatch', () => ({ secret: 'geheim' }) as any, {
      response: { 200: t.Object({ count: t.Number() }) },
    })
    .listen({ port: 0, hostname: '127.0.0.1' })
  routes = lab.routes
  return lab
}

onBothDatabases('a damaged database', api => {
  test('a statement that fails is a 500 that says nothing, and the log has the reason without the values', async () => {
    const ada = await api.user()
    await api.sql(
      `create or replace function fail() returns trigger language plpgsql as $$ begin raise exception 'row %', new.title; end $$`,
      [],
    )
    await api.sql(
      `create trigger fail before insert on tasks for each row when (new.title = 'geheim') execute function fail()`,
      [],
    )

    const answer = await api.post('/tasks', { token: ada.token, json: { title: 'geheim' } })

    expectError(answer, 500, 'internal', 'Internal server error')
    expect(answer.body.body).toBeUndefined()
    const logged = api
      .logs()
      .find(line => line.level === 'error' && line.request_id === answer.body.request_id)
    expect(logged).toMatchObject({ msg: 'request failed', code: 'P0001' })
    expect(JSON.stringify(api.logs())).not.toContain('geheim')
  })

  test('an unknown constraint is 409', async () => {
    const ada = await api.user()
    await api.sql(`alter table tasks add constraint unknown_rule check (title <> 'taboo')`, [])

    const answer = await api.post('/tasks', { token: ada.token, json: { title: 'taboo' } })

    expectError(answer, 409, 'conflict', 'Database integrity constraint violated')
    expect(JSON.stringify(answer.body)).not.toContain('unknown_rule')
  })

  test('a row that no answer can hold is a 500, and the log does not repeat it', async () => {
    const ada = await api.user()
    await api.sql(`update users set email = 'geheim' where id = $1`, [ada.id])

    // Tasks are sent as the database has them; an account is checked.
    const answer = await api.get('/users/me', { token: ada.token })

    expectError(answer, 500, 'internal', 'Internal server error')
    expect(JSON.stringify(api.logs())).not.toContain('geheim')
  })

  test('a database without its tables is 503 until they are there', async () => {
    const ada = await api.user()
    await api.sql('alter table tasks rename to tasks_away', [])

    const away = await api.get('/tasks', { token: ada.token })
    await api.sql('alter table tasks_away rename to tasks', [])
    const back = await api.get('/tasks', { token: ada.token })

    expectError(away, 503, 'unavailable', 'Service temporarily unavailable')
    expect(api.logs().findLast(({ msg }) => msg === 'request refused')).toMatchObject({
      level: 'warn',
      request_id: away.body.request_id,
      reason: 'unavailable',
      error: expect.any(String),
    })
    expect(back.status).toBe(200)
  })
})

onBothDatabases('whatever is sent', api => {
  test('no request gets a 5xx or an answer in another shape', async () => {
    const ada = await api.user()
    const task = await api.task(ada)
    // A stream that begins has no end.
    const routes = allRoutes().filter(
      route => route.path.startsWith('/api') && !/sessions\/|\/events$/.test(route.path),
    )
    // Not the calls that end Ada's session or account: the rest would be nothing but 401.
    const safe = routes.filter(
      ({ method, path }) => !path.endsWith('/logout') && !(method === 'DELETE' && path.endsWith('/me')),
    )
    const encode = (text: string) => encodeURIComponent(text.toWellFormed())
    const value = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 300 }),
      fc.constantFrom(
        null,
        true,
        0,
        -1,
        1e308,
        2 ** 63,
        1.5,
        '',
        '\0',
        '\ud800',
        'pending',
        ada.email,
        task.id,
        '2026-02-30T00:00:00Z',
        '+275760-09-13T00:00:00Z',
      ),
      fc.jsonValue({ maxDepth: 3 }),
    )
    const names = [
      'title',
      'description',
      'status',
      'priority',
      'tags',
      'due_at',
      'position',
      'email',
      'username',
      'password',
      'refresh_token',
      'grant_type',
      'scope',
      'current_password',
      'new_password',
      '__proto__',
      'id',
      'version',
    ]
    const object = fc.dictionary(fc.oneof(fc.constantFrom(...names), fc.string({ maxLength: 5 })), value, {
      maxKeys: 6,
    })
    const content = fc.oneof(
      object.map(sent => JSON.stringify(sent)),
      object.map(sent =>
        Object.entries(sent)
          .map(([name, item]) => `${encode(name)}=${encode(String(JSON.stringify(item)))}`)
          .join('&'),
      ),
      fc.string({ unit: 'binary' }),
      fc.uint8Array({ maxLength: 50 }),
    )
    const query = fc.array(
      fc.tuple(
        fc.constantFrom(
          'limit',
          'offset',
          'status',
          'permanent',
          'scope',
          'cursor',
          'q',
          'sort',
          'tag',
          'due_before',
          'since',
          'x',
        ),
        fc.oneof(
          fc.constantFrom(
            '1',
            '-1',
            '1e9',
            '%00',
            '%ff',
            '%',
            'true',
            'pending',
            '2026-02-30',
            '{}',
            '[]',
            '99999999999999999999',
          ),
          fc.string({ maxLength: 20 }).map(encodeURIComponent),
        ),
      ),
      { maxLength: 4 },
    )
    const request = fc.record({
      route: fc.constantFrom(...safe),
      id: fc.oneof(
        fc.constantFrom(task.id, nowhere, 'x', '%00', '%ZZ', '..', "'"),
        fc.webSegment().filter(id => id !== ''),
      ),
      query,
      type: fc.constantFrom(
        json,
        form,
        'Content-Type: text/plain',
        'Content-Type: multipart/form-data; boundary=x',
      ),
      token: fc.constantFrom(ada.token, ada.token, ada.token, 'x', ''),
      header: fc.constantFrom(
        'If-Match: "1"',
        'If-Match: \xff',
        'If-None-Match: *',
        'Idempotency-Key: x',
        'X-Forwarded-For: x,,1',
        'Origin: null',
        'Expect: x',
        'Range: bytes=0-1',
      ),
      content,
      chunkBytes: fc.constantFrom(0, 0, 7),
    })

    await fc.assert(
      fc.asyncProperty(request, async ({ route, id, query, type, token, header, content, chunkBytes }) => {
        const search = query.map(([name, item]) => `${name}=${item}`).join('&')
        const answer = await send(api.url, {
          line: `${route.method} ${route.path.replace(':id', id)}?${search}`,
          headers: [type, `Authorization: Bearer ${token}`, header],
          body: content,
          ...(chunkBytes && { chunkBytes }),
        })
        expect(answer.status).toBeGreaterThanOrEqual(200)
        expect(answer.status).toBeLessThan(500)
        expect(answer.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
        if (answer.status >= 400) expectError(answer, answer.status, answer.body.code)
      }),
      { numRuns: withEffort(400) },
    )
    expect(api.logs().filter(line => line.level === 'error')).toEqual([])
  }, 60_000)
})
