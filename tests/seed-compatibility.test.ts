import { describe, expect, test } from 'bun:test'
import { type Answer, client, onBothDatabases } from './support/harness.ts'

/**
 * What the FastAPI service (FastAPI 0.100, Pydantic 2.7) answered, recorded from a run of it. A client that was written
 * for it must find the same statuses and at least these fields.
 */
onBothDatabases('a client of the FastAPI service', api => {
  const old = () => client(api.url, '/api')
  const uuid = expect.stringMatching(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
  const moment = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)

  /** Of a problem's fields those that the FastAPI service had, too, and a client looks at. */
  const problems = ({ body }: Answer) =>
    body.detail.map(({ loc, msg, type }: { loc: string[]; msg: string; type: string }) => [loc, msg, type])

  async function signIn() {
    const email = `${crypto.randomUUID()}@example.com`
    const password = 'correct horse'
    const made = await old().post('/auth/register', { json: { email, password } })
    const login = await old().post('/auth/login', { form: { username: email, password } })
    return { id: made.body.id, email, password, made, login, token: login.body.access_token }
  }

  test('registers once', async () => {
    const { email, made } = await signIn()

    const again = await old().post('/auth/register', { json: { email, password: 'correct horse' } })

    expect(made.status).toBe(201)
    expect(made.body).toEqual({ id: uuid, email, created_at: moment })
    expect(made.headers.get('content-type')).toStartWith('application/json')
    expect([again.status, again.body.detail]).toEqual([400, 'Email already registered'])
  })

  test('logs in with a form', async () => {
    const { email, password, login } = await signIn()
    const form = {
      username: email,
      password,
      grant_type: 'password',
      scope: '',
      client_id: 'x',
      client_secret: 'y',
    }

    const oauth = await old().post('/auth/login', { form })
    const wrong = await old().post('/auth/login', { form: { username: email, password: 'wrong horse' } })
    const unknown = await old().post('/auth/login', { form: { username: 'unknown@example.com', password } })

    expect([login.status, oauth.status]).toEqual([200, 200])
    expect(login.body).toMatchObject({ access_token: expect.stringMatching(/^eyJ/), token_type: 'bearer' })
    for (const refused of [wrong, unknown]) {
      expect([refused.status, refused.body.detail]).toEqual([401, 'Incorrect email or password'])
      expect(refused.headers.get('www-authenticate')).toBe('Bearer')
    }
  })

  test.each(['', '/'])('creates, lists, changes and deletes tasks at /api/tasks%s', async slash => {
    const { id: userId, token } = await signIn()
    const empty = await old().get(`/tasks${slash}`, { token })
    const made = await old().post(`/tasks${slash}`, {
      token,
      json: { title: 'Buy milk', description: 'two litres' },
    })
    const task = `/tasks/${made.body.id}${slash}`
    const started = await old().put(task, { token, json: { status: 'in_progress' } })
    const renamed = await old().put(task, { token, json: { title: 'Oat milk' } })
    const cleared = await old().put(task, { token, json: { description: null } })
    const ignored = await old().put(task, { token, json: { user_id: 'x', nonsense: 1 } })
    const list = await old().get(`/tasks${slash}`, { token })
    const deleted = await old().delete(task, { token })
    const again = await old().delete(task, { token })
    const none = await old().get(`/tasks${slash}`, { token })

    expect([empty.status, empty.body]).toEqual([200, []])
    const asMade = {
      id: uuid,
      user_id: userId,
      title: 'Buy milk',
      description: 'two litres',
      status: 'pending',
      created_at: moment,
      updated_at: moment,
    }
    expect([made.status, made.body]).toEqual([201, expect.objectContaining(asMade)])
    const inProgress = { ...asMade, created_at: made.body.created_at, status: 'in_progress' }
    const oat = { ...inProgress, title: 'Oat milk' }
    expect([started.status, started.body]).toEqual([200, expect.objectContaining(inProgress)])
    expect([renamed.status, renamed.body]).toEqual([200, expect.objectContaining(oat)])
    for (const answer of [cleared, ignored]) {
      expect([answer.status, answer.body]).toEqual([
        200,
        expect.objectContaining({ ...oat, description: null }),
      ])
    }
    expect(Date.parse(renamed.body.updated_at)).toBeGreaterThanOrEqual(Date.parse(started.body.updated_at))
    expect([list.status, list.body]).toEqual([200, [ignored.body]])
    expect([deleted.status, deleted.body]).toEqual([204, undefined])
    expect([again.status, again.body.detail]).toEqual([404, 'Task not found'])
    expect([none.status, none.body]).toEqual([200, []])
  })

  test('is refused without a token, and with one that is none', async () => {
    const calls = [
      await old().get('/tasks/'),
      await old().post('/tasks/', { json: { title: 'x' } }),
      await old().put('/tasks/x', { json: { title: 'x' } }),
      await old().delete('/tasks/not-a-uuid'),
      await old().get('/tasks/', { headers: { authorization: 'Basic abc' } }),
    ]
    const nonsense = await old().get('/tasks/', { token: 'nonsense' })

    for (const answer of calls)
      expect([answer.status, answer.body.detail]).toEqual([401, 'Not authenticated'])
    expect([nonsense.status, nonsense.body.detail]).toEqual([401, 'Could not validate credentials'])
    for (const answer of [...calls, nonsense]) expect(answer.headers.get('www-authenticate')).toBe('Bearer')
  })

  test('meets the same refusals of other users’ and unknown tasks', async () => {
    const ada = await signIn()
    const bob = await signIn()
    const { body: task } = await old().post('/tasks/', { token: ada.token, json: { title: 'x' } })
    const { token } = bob
    const unknown = crypto.randomUUID()
    const statusOf = async (answer: Promise<Answer>) => {
      const { status, body } = await answer
      return [status, body.detail]
    }

    expect(await statusOf(old().put(`/tasks/${task.id}`, { token, json: { title: 'y' } }))).toEqual([
      403,
      'Not authorized',
    ])
    expect(await statusOf(old().delete(`/tasks/${task.id}`, { token }))).toEqual([403, 'Not authorized'])
    expect(await statusOf(old().put(`/tasks/${unknown}`, { token, json: { title: 'y' } }))).toEqual([
      404,
      'Task not found',
    ])
    expect(await statusOf(old().put('/tasks/not-a-uuid', { token, json: { title: 'y' } }))).toEqual([
      404,
      'Task not found',
    ])
    expect(await statusOf(old().delete('/tasks/not-a-uuid', { token }))).toEqual([404, 'Task not found'])
    // Validation came before existence there.
    expect((await old().put(`/tasks/${unknown}`, { token, json: { status: 'done' } })).status).toBe(422)
    expect((await old().get('/tasks/', { token })).body).toEqual([])
  })

  describe('finds the same problems', () => {
    const required = 'Field required'
    test.each([
      ['/auth/register', { email: 'a@example.com' }, [[['body', 'password'], required, 'missing']]],
      [
        '/auth/register',
        {},
        [
          [['body', 'email'], required, 'missing'],
          [['body', 'password'], required, 'missing'],
        ],
      ],
      ['/tasks/', {}, [[['body', 'title'], required, 'missing']]],
      [
        '/tasks/',
        { title: '' },
        [[['body', 'title'], 'String should have at least 1 character', 'string_too_short']],
      ],
      [
        '/tasks/',
        { title: 'x'.repeat(201) },
        [[['body', 'title'], 'String should have at most 200 characters', 'string_too_long']],
      ],
      ['/tasks/', { title: 5 }, [[['body', 'title'], 'Input should be a valid string', 'string_type']]],
      ['/tasks/', { title: null }, [[['body', 'title'], 'Input should be a valid string', 'string_type']]],
      [
        '/tasks/',
        { title: 'x', description: 'y'.repeat(2001) },
        [[['body', 'description'], 'String should have at most 2000 characters', 'string_too_long']],
      ],
    ])('%s, the same as before (%#)', async (path, json, expected) => {
      const { token } = await signIn()

      const answer = await old().post(path, { token, json })

      expect(answer.status).toBe(422)
      expect(problems(answer)).toEqual(expected)
      expect(answer.body.body).toEqual(json)
    })

    test('in forms, in changes, in JSON that is none, and where there is no body', async () => {
      const { token, email } = await signIn()
      const form = await old().post('/auth/login', { form: { username: email } })
      const { body: task } = await old().post('/tasks/', { token, json: { title: 'x' } })
      const change = await old().put(`/tasks/${task.id}`, { token, json: { status: 'done', title: '' } })
      const malformed = await old().post('/tasks/', {
        token,
        raw: '{"title": ',
        headers: { 'content-type': 'application/json' },
      })
      const nothing = await old().post('/tasks/', { token })

      expect([form.status, problems(form)]).toEqual([422, [[['body', 'password'], required, 'missing']]])
      expect(form.body.body).toEqual({ username: email })
      expect(change.status).toBe(422)
      expect(problems(change).map(([loc]: [string[]]) => loc)).toEqual([
        ['body', 'title'],
        ['body', 'status'],
      ])
      expect([malformed.status, malformed.body.detail[0]]).toMatchObject([
        422,
        { msg: 'JSON decode error', type: 'json_invalid' },
      ])
      expect([nothing.status, problems(nothing), nothing.body.body]).toEqual([
        422,
        [[['body'], required, 'missing']],
        null,
      ])
    })
  })

  test('finds the same ends of the map', async () => {
    const { token } = await signIn()
    const health = await old().get('/health')
    const unknown = await api.get(`${api.url}/nope`)
    const wrongMethods = [
      await old().get('/auth/login'),
      await old().delete('/tasks/', { token }),
      await old().post('/health'),
    ]

    expect([health.status, health.body]).toEqual([200, { status: 'healthy' }])
    expect([unknown.status, unknown.body.detail]).toEqual([404, 'Not Found'])
    for (const answer of wrongMethods) {
      expect([answer.status, answer.body.detail]).toEqual([405, 'Method Not Allowed'])
    }
    expect(wrongMethods[0]!.headers.get('allow')).toBe('POST')
  })

  test('in a browser on the frontend’s origin may call with credentials, from elsewhere not', async () => {
    const from = (origin: string) => old().get('/tasks/', { headers: { origin } })

    const ours = await from('http://localhost:3000')
    const other = await from('http://evil.example')

    expect(ours.status).toBe(401)
    expect(ours.headers.get('access-control-allow-origin')).toBe('http://localhost:3000')
    expect(ours.headers.get('access-control-allow-credentials')).toBe('true')
    expect(other.headers.get('access-control-allow-origin')).toBeNull()
  })

  test('meets only the differences that the changelog names', async () => {
    const { token } = await signIn()
    const make = (json: object) => old().post('/tasks/', { token, json })
    const first = await make({ title: 'first' })
    const second = await make({ title: 'second' })

    // Newest first, where the FastAPI service had no order.
    expect((await old().get('/tasks/', { token })).body).toEqual([second.body, first.body])
    // A task can be read and patched.
    expect((await old().get(`/tasks/${first.body.id}`, { token })).body).toEqual(first.body)
    // A title is not blank; an empty change leaves `updated_at` as it is.
    expect((await make({ title: '   ' })).status).toBe(422)
    expect((await old().put(`/tasks/${first.body.id}`, { token, json: {} })).body).toEqual(first.body)
    // E-mail addresses and passwords have rules, and a 422 does not repeat a password.
    const bad = await old().post('/auth/register', { json: { email: 'nonsense', password: 'short' } })
    expect([bad.status, bad.body.body]).toEqual([422, { email: 'nonsense', password: '********' }])
  })
})
