import { expect, test } from 'bun:test'
import { Value } from '@sinclair/typebox/value'
import { createDb } from '../src/db/drizzle.ts'
import { task } from '../src/modules/tasks/model.ts'
import { perColumns, updateTask } from '../src/modules/tasks/statements.ts'
import { client, onBothDatabases } from './support/harness.ts'
import { listening } from './support/listening.ts'

const moment = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/

onBothDatabases('tasks', api => {
  test('a created task is answered whole, with its address and its ETag', async () => {
    const ada = await api.user()

    const made = await api.post('/tasks', {
      token: ada.token,
      json: { title: 'Buy milk', description: 'two litres' },
    })

    expect(made.status).toBe(201)
    expect(made.body).toEqual({
      id: expect.any(String),
      user_id: ada.id,
      title: 'Buy milk',
      description: 'two litres',
      status: 'pending',
      priority: 0,
      due_at: null,
      tags: [],
      list_id: null,
      parent_id: null,
      position: '',
      completed_at: null,
      created_at: expect.stringMatching(moment),
      updated_at: expect.stringMatching(moment),
      version: 1,
    })
    expect(made.headers.get('location')).toBe(`/api/v1/tasks/${made.body.id}`)
    expect(made.headers.get('etag')).toBe('"1"')
    const answers = [made]
    for (const path of ['/tasks', `/tasks/${made.body.id}`, '/tasks/changes', '/lists'])
      answers.push(await api.get(path, { token: ada.token }))
    for (const { headers } of answers) expect(headers.get('content-type')).toStartWith('application/json')
    // All that may be null is.
    expect([...Value.Errors(task, made.body)]).toEqual([])
  })

  test.each([
    ['/tasks', { title: 'x' }],
    ['/lists', { name: 'x' }],
  ])(
    '%s names what was created under the address that was called, a slash at its end or not',
    async (path, json) => {
      const ada = await api.user()

      const made = await api.post(`${path}/`, { token: ada.token, json })

      expect(made.headers.get('location')).toBe(`/api/v1${path}/${made.body.id}`)
      const old = await api.post(`${api.url}/api${path}`, { token: ada.token, json })
      expect(old.headers.get('location')).toBe(`/api${path}/${old.body.id}`)
    },
  )

  test('a request that is frequent is one statement', async () => {
    const { url, sent, stop } = listening(api)
    const there = client(url)
    const ada = await there.user()
    const { id } = await there.task(ada)
    const list = await there.post('/lists', { token: ada.token, json: { name: 'x' } })
    const requests: [method: string, path: string, json?: object][] = [
      ['GET', '/tasks'],
      ['GET', '/tasks?status=pending&limit=1'],
      ['GET', `/tasks?list=${list.body.id}`],
      ['GET', '/tasks?sort=-priority,due_at&q=milk&tag=a'],
      ['GET', `/tasks/${id}`],
      ['GET', '/tasks/changes'],
      ['GET', '/tasks/stats'],
      ['GET', '/tasks/trash'],
      ['GET', '/lists?counts=true'],
      ['GET', `/lists/${list.body.id}?counts=true`],
      ['GET', '/users/me'],
      ['POST', '/tasks', { title: 'x', status: 'completed' }],
      ['POST', '/tasks', { id: crypto.randomUUID(), title: 'x', list_id: list.body.id }],
      ['PATCH', `/tasks/${id}`, { title: 'y' }],
      ['PUT', `/tasks/${id}`, { status: 'completed', description: 'z' }],
    ]
    for (const [method, path, json] of requests) {
      const before = sent.length
      const { status } = await there.request(method, path, { token: ada.token, json })
      // Whether the session is alive is remembered for less than a second.
      const own = sent.slice(before).filter(text => !/"session(s|_ends)"/.test(text))
      expect([method, path, status < 300, own.length]).toEqual([method, path, true, 1])
    }
    await stop()
  })

  test('the list is an array, newest first, of the caller’s live tasks only', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const first = await api.task(ada, { title: 'first' })
    const second = await api.task(ada, { title: 'second' })
    const gone = await api.task(ada, { title: 'gone' })
    await api.task(bob, { title: 'not yours' })
    await api.delete(`/tasks/${gone.id}`, { token: ada.token })

    const list = await api.get('/tasks', { token: ada.token })

    expect(list.status).toBe(200)
    expect(list.body).toEqual([second, first])
  })

  test('the next page keeps every filter, whatever a value holds', async () => {
    const ada = await api.user()
    for (const status of ['pending', 'completed', 'pending', 'pending']) {
      await api.task(ada, { title: 'why?', status })
    }

    const first = await api.get('/tasks?q=why?&status=pending&limit=2', { token: ada.token })

    const [, next] = first.headers.get('link')!.match(/^<\/api\/v1(.*)>; rel="next"$/)!
    expect(next).toStartWith('/tasks?q=why?&status=pending&limit=2&cursor=')
    const second = await api.get(next!, { token: ada.token })
    expect(second.body.map(({ status }: { status: string }) => status)).toEqual(['pending'])
  })

  test('limit and offset cut pages out of the list, and a limit over 200 is refused', async () => {
    const ada = await api.user()
    for (const title of ['a', 'b', 'c', 'd']) await api.task(ada, { title })

    const page = await api.get('/tasks?limit=2&offset=1', { token: ada.token })
    const tooMany = await api.get('/tasks?limit=201', { token: ada.token })

    expect(page.body.map((task: { title: string }) => task.title)).toEqual(['c', 'b'])
    expect(tooMany.status).toBe(422)
    expect(tooMany.body.detail).toEqual([
      { loc: ['query', 'limit'], msg: 'Input should be at most 200', type: 'less_than_equal' },
    ])
  })

  test('status picks one status or several', async () => {
    const ada = await api.user()
    await api.task(ada, { title: 'open' })
    await api.task(ada, { title: 'doing', status: 'in_progress' })
    await api.task(ada, { title: 'done', status: 'completed' })
    const titles = async (query: string) =>
      (await api.get(`/tasks?${query}`, { token: ada.token })).body.map(
        (task: { title: string }) => task.title,
      )

    expect(await titles('status=pending')).toEqual(['open'])
    expect(await titles('status=completed&status=in_progress')).toEqual(['done', 'doing'])
    expect(await titles('status=pending&status=in_progress&status=completed')).toEqual([
      'done',
      'doing',
      'open',
    ])
  })

  test.each(['put', 'patch'] as const)('%s changes what is sent and leaves the rest', async method => {
    const ada = await api.user()
    const task = await api.task(ada, { description: 'two litres' })

    const done = await api[method](`/tasks/${task.id}`, { token: ada.token, json: { status: 'completed' } })
    const cleared = await api[method](`/tasks/${task.id}`, { token: ada.token, json: { description: null } })
    const reopened = await api[method](`/tasks/${task.id}`, { token: ada.token, json: { status: 'pending' } })

    expect(done.body).toMatchObject({
      title: 'Buy milk',
      description: 'two litres',
      status: 'completed',
      version: 2,
    })
    expect(done.body.completed_at).toMatch(moment)
    expect(cleared.body).toMatchObject({
      title: 'Buy milk',
      description: null,
      status: 'completed',
      version: 3,
    })
    expect(cleared.body.completed_at).toBe(done.body.completed_at)
    expect(reopened.body).toMatchObject({ status: 'pending', completed_at: null, version: 4 })
  })

  test('an empty change changes nothing, unknown fields are ignored, and no user can give a task away', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const task = await api.task(ada)

    const empty = await api.patch(`/tasks/${task.id}`, { token: ada.token, json: {} })
    const unknown = await api.patch(`/tasks/${task.id}`, {
      token: ada.token,
      json: { user_id: bob.id, id: bob.id, version: 99, created_at: '2000-01-01T00:00:00Z', nonsense: true },
    })

    expect(empty.body).toEqual(task)
    expect(unknown.body).toEqual(task)
  })

  test('null is refused where a task needs a value', async () => {
    const ada = await api.user()
    const task = await api.task(ada)

    const answer = await api.patch(`/tasks/${task.id}`, {
      token: ada.token,
      json: { title: null, status: null },
    })

    expect(answer.status).toBe(422)
    expect(answer.body.detail.map((problem: { loc: string[] }) => problem.loc)).toEqual([
      ['body', 'title'],
      ['body', 'status'],
    ])
  })

  test('lengths count code points, and texts that PostgreSQL cannot hold are refused', async () => {
    const ada = await api.user()
    const create = (title: string) => api.post('/tasks', { token: ada.token, json: { title } })

    expect((await create('🦆'.repeat(200))).status).toBe(201)
    expect((await create('🦆'.repeat(201))).body.detail[0].type).toBe('string_too_long')
    expect((await create('')).body.detail[0].type).toBe('string_too_short')
    expect((await create(' \t\u3000')).body.detail[0].type).toBe('string_blank')
    expect((await create('a\0b')).body.detail[0].type).toBe('string_unicode')
    expect((await create('a\ud800b')).body.detail[0].type).toBe('string_unicode')
  })

  test('a deleted task is gone for its owner, at once and at every address', async () => {
    const ada = await api.user()
    for (const query of ['', '?permanent=true']) {
      const task = await api.task(ada)

      const deleted = await api.delete(`/tasks/${task.id}${query}`, { token: ada.token })

      expect(deleted.status).toBe(204)
      expect(deleted.body).toBeUndefined()
      for (const method of ['get', 'delete'] as const) {
        const again = await api[method](`/tasks/${task.id}`, { token: ada.token })
        expect(again).toMatchObject({
          status: 404,
          body: { detail: 'Task not found', code: 'task_not_found' },
        })
      }
      const change = await api.put(`/tasks/${task.id}`, { token: ada.token, json: { title: 'x' } })
      expect(change.status).toBe(404)
    }
  })

  test.each(['nonsense', '%00', '%ZZ', "1' or '1'='1", crypto.randomUUID()])(
    'there is no task %p',
    async id => {
      const ada = await api.user()
      for (const [method, json] of [['GET'], ['PUT', {}], ['PATCH', {}], ['DELETE']] as [string, object?][]) {
        const answer = await api.request(method, `/tasks/${id}`, { token: ada.token, json })
        expect(answer).toMatchObject({ status: 404, body: { detail: 'Task not found' } })
      }
    },
  )

  test('the statement of a change is made once for the fields that it changes', () => {
    const db = createDb(api.driver)
    const updateOf = perColumns(columns => updateTask(db, columns))

    expect(updateOf(['title'])).toBe(updateOf(['title']))
    expect(updateOf(['title', 'status'])).not.toBe(updateOf(['title']))
  })

  test('twenty changes at once are all applied, each with a version of its own', async () => {
    const ada = await api.user()
    const task = await api.task(ada)

    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        api.patch(`/tasks/${task.id}`, { token: ada.token, json: { title: `title ${i}` } }),
      ),
    )

    expect(answers.map(answer => answer.status)).toEqual(Array(20).fill(200))
    const versions = answers.map(answer => answer.body.version).sort((a, b) => a - b)
    expect(versions).toEqual(Array.from({ length: 20 }, (_, i) => i + 2))
  })
})
