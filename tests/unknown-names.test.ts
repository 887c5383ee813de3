import { describe, expect, test } from 'bun:test'
import { type AnyElysia, Elysia, t } from 'elysia'
import { refuseUnknownNames } from '../src/http/unknown-names.ts'
import { similarName } from '../src/lib/nearest.ts'
import { onBothDatabases } from './support/harness.ts'
import { expectError } from './support/wire.ts'

const strict = { prefer: 'handling=strict' }

onBothDatabases('what a route does not know', api => {
  describe('in an address', () => {
    test.each([
      ['/tasks?stauts=pending', 'stauts', "Unknown parameter: the nearest known one is 'status'"],
      ['/tasks?STATUS=pending', 'STATUS', "Unknown parameter: the nearest known one is 'status'"],
      ['/tasks?tags=home', 'tags', "Unknown parameter: the nearest known one is 'tag'"],
      ['/tasks?x=1&x=2', 'x', undefined],
      ['/tasks?tag[0]=home', 'tag[0]', "Unknown parameter: the nearest known one is 'tag'"],
      ['/tasks?limits', 'limits', "Unknown parameter: the nearest known one is 'limit'"],
      ['/tasks?limit=5&&offsets=1', 'offsets', "Unknown parameter: the nearest known one is 'offset'"],
      ['/tasks??status=completed', '?status', "Unknown parameter: the nearest known one is 'status'"],
      ['/tasks?due_befor%65=x', 'due_before', undefined],
      ['/tasks?curser=x', 'curser', "Unknown parameter: the nearest known one is 'cursor'"],
      ['/tasks/trash?page=2', 'page', 'Unknown parameter: known are limit, cursor'],
      ...['page', 'per_page', 'search', 'order'].map(
        name =>
          [`/tasks?${name}=2`, name, expect.stringContaining('known are limit, offset, cursor, ')] as const,
      ),
      ['/tasks/trash?constructor=1', 'constructor', 'Unknown parameter: known are limit, cursor'],
      ['/users/me?expand=tasks', 'expand', 'Unknown parameter: none is known here'],
    ])('%s is refused with the nearest name, or with all', async (path, name, msg) => {
      const ada = await api.user()
      for (const method of ['GET', 'HEAD']) {
        const answer = await api.request(method, path, { token: ada.token })
        expect(answer.status).toBe(422)
        if (method === 'HEAD') continue
        expect(answer.body.detail).toHaveLength(1)
        const [problem] = answer.body.detail
        expect(problem.loc).toEqual(['query', name])
        if (msg !== undefined) expect(problem).toMatchObject({ type: 'extra_forbidden', msg })
      }
    })

    test('is refused by the writes too, and nothing is written', async () => {
      const ada = await api.user()
      const task = await api.task(ada)
      const { token } = ada
      for (const answer of [
        await api.post('/tasks?dry_run=true', { token, json: { title: 'x' } }),
        await api.patch(`/tasks/${task.id}?permanent=true`, { token, json: { title: 'x' } }),
        await api.delete(`/tasks/${task.id}?permanant=true`, { token }),
        await api.post('/auth/register?admin=true', {
          json: { email: 'a@example.com', password: 'correct horse' },
        }),
      ]) {
        expectError(answer, 422, 'validation_failed')
        expect(answer.body.detail[0].type).toBe('extra_forbidden')
      }
      expect((await api.get('/tasks', { token })).body).toEqual([task])
    })

    test.each([
      ['priority=3&priority=4', ['priority']],
      ['q=a&tag=x&tag=y&q=a', ['q']],
      ['priorit%79=3&total=true&priority=3&total=true', ['priority', 'total']],
    ])('a parameter that is no list is refused when it comes twice: %s', async (query, names) => {
      const { token } = await api.user()
      const problems = names.map(name => ({
        loc: ['query', name],
        msg: 'Should come only once',
        type: 'repeated',
      }))
      expectError(await api.get(`/tasks?${query}`, { token }), 422, 'validation_failed', problems)
    })

    test('is reported together with everything else that is wrong', async () => {
      const ada = await api.user()
      const { body } = await api.get('/tasks?stauts=pending&limit=0&prioritty=1', { token: ada.token })
      const places = body.detail.map(({ loc }: { loc: string[] }) => loc.join('.'))
      expect(places).toEqual(['query.limit', 'query.stauts', 'query.prioritty'])
    })

    test('is ignored when its name begins with _, and reveals nothing without a token', async () => {
      const ada = await api.user()
      for (const method of ['GET', 'HEAD'])
        expect(
          (await api.request(method, '/tasks?_=1700000000&_debug=x&=y&limit=5', { token: ada.token })).status,
        ).toBe(200)
      expectError(await api.get('/tasks?stauts=x'), 401, 'not_authenticated')
      expect((await api.get('/health?probe=1')).status).toBe(200)
    })
  })

  describe('in a body', () => {
    test('is ignored, unless the client prefers strict handling', async () => {
      const { token } = await api.user()
      const json = { title: 'x', titel: 'y', tags: ['a'] }
      const lenient = await api.post('/tasks?_=1', { token, json })
      expect([lenient.status, lenient.headers.get('preference-applied')]).toEqual([201, null])

      for (const prefer of ['handling=strict', 'respond-async, handling=strict', 'Handling="Strict"; x=1']) {
        const answer = await api.post('/tasks', { token, json, headers: { prefer } })
        expectError(answer, 422, 'validation_failed', [
          {
            loc: ['body', 'titel'],
            msg: "Unknown field: the nearest known one is 'title'",
            type: 'extra_forbidden',
          },
        ])
        expect(answer.headers.get('preference-applied')).toBe('handling=strict')
      }
      const others = [
        'handling=lenient',
        'handling=strictest',
        'xhandling=strict',
        // The first one counts, and what follows a semicolon belongs to another preference (RFC 7240, 2).
        'handling=lenient, handling=strict',
        'respond-async; handling=strict',
      ]
      for (const prefer of others)
        expect((await api.post('/tasks', { token, json, headers: { prefer } })).status).toBe(201)
      expect((await api.get('/tasks', { token })).body).toHaveLength(1 + others.length)
    })

    test('a body of known fields is accepted, and the answer says how it was handled', async () => {
      const { token, email, password } = await api.user()
      const answers = [
        await api.post('/tasks', { token, json: { title: 'x', description: null }, headers: strict }),
        await api.post('/auth/login', { json: { email, password }, headers: strict }),
        await api.post('/auth/login', {
          form: { username: email, password, grant_type: 'password', scope: '', client_id: 'a' },
          headers: strict,
        }),
        await api.post('/tasks/batch', {
          token,
          json: { operations: [{ op: 'create', task: { title: 'y' } }] },
          headers: strict,
        }),
      ]
      for (const { status, headers } of answers) {
        expect([200, 201]).toContain(status)
        expect(headers.get('preference-applied')).toBe('handling=strict')
      }
      const read = await api.get('/tasks', { token, headers: strict })
      expect([read.status, read.headers.get('preference-applied')]).toEqual([200, null])
    })

    test('strict handling looks at every depth, and reports everything at once', async () => {
      const { token } = await api.user()
      const operations = [
        { op: 'create', task: { title: '', priorty: 1 } },
        { op: 'delete', id: crypto.randomUUID(), task: {}, permanent: true },
      ]
      const { body } = await api.post('/tasks/batch', { token, json: { operations, x: 1 }, headers: strict })
      const places = body.detail.map(({ loc, type }: { loc: string[]; type: string }) => [
        loc.join('.'),
        type,
      ])
      expect(places).toEqual([
        ['body.operations.0.task.title', 'string_too_short'],
        ['body.operations.0.task.priorty', 'extra_forbidden'],
        ['body.operations.1.task', 'extra_forbidden'],
        ['body.operations.1.permanent', 'extra_forbidden'],
        ['body.x', 'extra_forbidden'],
      ])
    })

    test('null is no body, strictly, too', async () => {
      const { token } = await api.user()
      const { status, body } = await api.post('/tasks', { token, json: null, headers: strict })
      expect([status, body.detail]).toEqual([
        422,
        [{ loc: ['body'], msg: 'Field required', type: 'missing' }],
      ])
    })

    test('an unknown field that holds a secret is masked', async () => {
      const json = { email: 'a@example.com', password: 'correct horse', client_secret: 'hush', x: 1 }
      const { status, body } = await api.post('/auth/register', { json, headers: strict })
      expect(status).toBe(422)
      expect(body.detail).toHaveLength(2)
      expect(JSON.stringify(body)).not.toMatch(/hush|correct horse/)
    })
  })

  test('a long name is compared by its beginning', () => {
    const [beginning, rest] = ['a'.repeat(100), 'b'.repeat(500)]
    expect(similarName(beginning + rest, [rest, beginning])).toBe(beginning)
  })

  test('lists in an address come as name=, repeated, and as name[]=', async () => {
    const { token } = await api.user()
    for (const [title, status, tag] of [
      ['one', 'pending', 'a,b'],
      ['two', 'in_progress', 'c'],
      ['three', 'completed', 'd'],
    ])
      await api.task({ token }, { title, status, tags: [tag] })

    const titles = async (query: string) =>
      (await api.get(`/tasks?sort=created_at&${query}`, { token })).body.map(
        ({ title }: { title: string }) => title,
      )

    for (const query of [
      'status=pending&status=in_progress',
      'status[]=pending&status[]=in_progress',
      'status%5B%5D=pending&status%5b%5d=in_progress',
      'status=pending&status[]=in_progress',
      'tag=a%2Cb&tag=c',
      'tag[]=a%2Cb&tag[]=c',
      'tag[]=a,b&tag=c&status[]=pending&status[]=in_progress',
    ])
      expect([query, await titles(query)]).toEqual([query, ['one', 'two']])
    expect(await titles('status[]=completed')).toEqual(['three'])

    const wrong = await api.get('/tasks?status[]=done&limit[]=5', { token })
    expect(wrong.body.detail.map(({ loc }: { loc: string[] }) => loc.slice(0, 2).join('.')).sort()).toEqual([
      'query.limit',
      'query.status',
    ])
    expect((await api.get('/tasks?tag=a&tag=%00', { token })).body.detail).toMatchObject([
      { loc: ['query', 'tag'], type: 'string_unicode' },
    ])
  })

  test('the next page keeps the lists of its address', async () => {
    const { token } = await api.user()
    for (let i = 0; i < 3; i++) await api.task({ token }, { tags: ['a'] })
    await api.task({ token }, { status: 'completed' })
    let address = '/api/v1/tasks?tag[]=a&status[]=pending&limit=2'
    const seen: string[] = []
    for (;;) {
      const { body, headers } = await api.get(api.url + address, { token })
      seen.push(...body.map(({ id }: { id: string }) => id))
      const link = headers.get('link')
      if (!link) break
      address = link.split(/[<>]/)[1]!
    }
    expect(new Set(seen).size).toBe(3)
  })
})

test('the parameters of a route are looked up once, and those of each method by themselves', async () => {
  let lookups = 0
  let routes: AnyElysia['routes'] = []
  const lookUp = () => {
    lookups++
    return routes
  }
  const app = new Elysia()
    .use(refuseUnknownNames(lookUp))
    .onError(() => 'refused')
    .get('/tasks', () => 'taken', { query: t.Object({ limit: t.Optional(t.String()) }) })
    .post('/tasks', () => 'taken', { query: t.Object({ atomic: t.Optional(t.String()) }) })
  routes = app.routes
  const ask = async (method: string, query: string) =>
    (await app.handle(new Request(`http://localhost/tasks?${query}`, { method }))).text()

  expect([await ask('GET', 'limit=1'), await ask('GET', 'limit=2')]).toEqual(['taken', 'taken'])
  expect(lookups).toBe(1)
  expect([await ask('POST', 'atomic=1'), await ask('POST', 'limit=1')]).toEqual(['taken', 'refused'])
  expect(lookups).toBe(2)
})
