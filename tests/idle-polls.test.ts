import { describe, expect, test } from 'bun:test'
import { createDb } from '../src/db/drizzle.ts'
import { migrations } from '../src/db/migrator.ts'
import { createAnswerTags, notModified } from '../src/http/entity-tag.ts'
import { createListService } from '../src/modules/lists/service.ts'
import { createTaskService } from '../src/modules/tasks/service.ts'
import { type Answer, onBothDatabases, type Service, testSettings, type User } from './support/harness.ts'

const addresses = [
  '/tasks',
  // There is a next page.
  '/tasks?status=pending&status=completed&sort=-priority,title&limit=1',
  '/tasks?q=milk&total=true',
  '/tasks?overdue=false',
  '/tasks?offset=1&limit=1',
  '/lists',
  '/lists?counts=true&total=true',
  '/tasks/changes',
  '/tasks/changes?limit=1',
]

onBothDatabases('an idle poll', (api: Service) => {
  const poll = ({ token }: User, path: string, tag: string | null) =>
    api.get(path, { token, headers: tag === null ? {} : { 'if-none-match': tag } })
  const tagOf = async (user: User, path: string) => (await poll(user, path, null)).headers.get('etag')!

  async function begin() {
    const ada = await api.user()
    const [one, two] = [await api.task(ada, { priority: 1 }), await api.task(ada)]
    const list = (await api.post('/lists', { token: ada.token, json: { name: 'a' } })).body
    return { ada, one, two, list }
  }

  describe.each(addresses)('%s', path => {
    test('is a 304 without a body while nothing changes, and a 200 after a change', async () => {
      const { ada, one } = await begin()
      const first = await poll(ada, path, null)
      const tag = first.headers.get('etag')!
      expect(first.status).toBe(200)
      expect(first.headers.get('cache-control')).toBe('private, no-cache')

      for (const known of [tag, `W/${tag}`, `"x", ${tag}`, '*', tag.replace(/"$/, '-gzip"')]) {
        const again = await poll(ada, path, known)
        expect([again.status, again.body, again.headers.get('etag')]).toEqual([304, undefined, tag])
        expect(again.headers.get('content-type')).toBeNull()
        expect(again.headers.get('cache-control')).toBe('private, no-cache')
      }
      const head = await api.request('HEAD', path, { token: ada.token, headers: { 'if-none-match': tag } })
      expect(head.status).toBe(304)

      await api.patch(`/tasks/${one.id}`, { token: ada.token, json: { title: 'milk, changed' } })
      const changed = await poll(ada, path, tag)
      expect(changed.status).toBe(200)
      expect(changed.headers.get('etag')).not.toBe(tag)
      expect((await poll(ada, path, changed.headers.get('etag'))).status).toBe(304)
    })

    test('knows no tag of another user, and none of another address', async () => {
      const [{ ada }, { ada: bob }] = [await begin(), await begin()]
      expect((await poll(bob, path, await tagOf(ada, path))).status).toBe(200)
      for (const other of addresses.filter(other => other !== path))
        expect((await poll(ada, path, await tagOf(ada, other))).status).toBe(200)
    })
  })

  test.each(addresses)('%s has a tag for a user who has changed nothing yet', async path => {
    const ada = await api.user()
    const tag = await tagOf(ada, path)
    expect((await poll(ada, path, tag)).status).toBe(304)

    await api.task(ada)
    expect((await poll(ada, path, tag)).status).toBe(200)
  })

  test('notices every kind of change', async () => {
    const { ada, one, two, list } = await begin()
    const { token } = ada
    const batch = { operations: [{ op: 'create', task: { title: 'x' } }] }
    const changes: [string, () => Promise<Answer>][] = [
      ['create', () => api.post('/tasks', { token, json: { title: 'new' } })],
      [
        'create with an id',
        () => api.post('/tasks', { token, json: { id: crypto.randomUUID(), title: 'new' } }),
      ],
      ['update', () => api.patch(`/tasks/${one.id}`, { token, json: { priority: 3 } })],
      ['trash', () => api.delete(`/tasks/${one.id}`, { token })],
      ['restore', () => api.post(`/tasks/${one.id}/restore`, { token })],
      ['batch', () => api.post('/tasks/batch', { token, json: batch })],
      [
        'batch, each on its own',
        () => api.post('/tasks/batch', { token, json: { ...batch, atomic: false } }),
      ],
      ['move to a list', () => api.patch(`/tasks/${two.id}`, { token, json: { list_id: list.id } })],
      ['rename a list', () => api.patch(`/lists/${list.id}`, { token, json: { name: 'b' } })],
      ['delete a list', () => api.delete(`/lists/${list.id}`, { token })],
      ['permanent deletion', () => api.delete(`/tasks/${one.id}?permanent=true`, { token })],
    ]
    for (const [name, change] of changes) {
      const before = await Promise.all(addresses.map(path => tagOf(ada, path)))
      expect([name, (await change()).status < 300]).toEqual([name, true])
      const statuses = await Promise.all(
        addresses.map(async (path, i) => (await poll(ada, path, before[i]!)).status),
      )
      expect([name, ...statuses]).toEqual([name, ...addresses.map(() => 200)])
    }
  })

  test('is a 304 after a change that changes nothing, and after one of another user', async () => {
    const { ada, one } = await begin()
    const tag = await tagOf(ada, '/tasks')
    await api.patch(`/tasks/${one.id}`, { token: ada.token, json: { title: one.title } })
    await begin()
    expect((await poll(ada, '/tasks', tag)).status).toBe(304)
  })

  test('has no tag when time decides about the answer', async () => {
    const { ada } = await begin()
    for (const known of [null, '*', await tagOf(ada, '/tasks')]) {
      const answer = await poll(ada, '/tasks?overdue=true', known)
      expect([answer.status, answer.headers.get('etag')]).toEqual([200, null])
    }
  })

  test('is refused as without a tag: a wrong cursor, a wrong parameter, a cursor that is too old', async () => {
    const { ada } = await begin()
    const { cursor } = (await api.get('/tasks/changes', { token: ada.token })).body
    for (const path of ['/tasks?cursor=x', '/tasks?limit=0', '/lists?cursor=x', '/tasks/changes?since=x'])
      expect((await poll(ada, path, '*')).status).toBe(422)
    expect((await poll(ada, '/tasks', 'no tag')).body.detail[0].loc).toEqual(['header', 'if-none-match'])

    const at = `/tasks/changes?since=${cursor}`
    const [tag, tagOfAll] = [await tagOf(ada, at), await tagOf(ada, '/tasks/changes')]
    const set = (column: string, by: number) =>
      api.sql(`update user_versions set ${column} = ${column} + $2 where user_id = $1`, [ada.id, by])
    await set('forgotten_version', 1000)
    for (const known of [tag, '*', null]) expect((await poll(ada, at, known)).status).toBe(410)
    // A client that begins again gets a cursor from after what is forgotten.
    const restarted = await poll(ada, '/tasks/changes', tagOfAll)
    expect(restarted.status).toBe(200)
    expect((await poll(ada, `/tasks/changes?since=${restarted.body.cursor}`, null)).status).toBe(200)
    await set('forgotten_version', -1000)
    await set('last_version', -1)
    for (const known of [tag, '*', null]) expect((await poll(ada, at, known)).status).toBe(410)
  })

  test('is a 200 after an upgrade with a migration: another one is in each tag', async () => {
    const ada = await api.user()
    const tag = await tagOf(ada, '/tasks')
    const [, version] = /^"(\d+)-/.exec(tag)!
    const [before, now] = migrations.slice(-2).map(migration => {
      const tags = createAnswerTags(testSettings.SECRET_KEY, migration.tag)
      return `"${tags(ada.id, new Request(`${api.url}/api/v1/tasks`))(version!)}"`
    })

    expect(tag).toBe(now!)
    expect(tag).not.toBe(before!)
  })

  test('reads no task and no list', async () => {
    const ada = await api.user()
    const statements: string[] = []
    const query: typeof api.driver.query = (text, ...rest) => {
      statements.push(text)
      return api.driver.query(text, ...rest)
    }
    const { transaction } = api.driver
    const tasks = createTaskService({
      db: createDb({ query, transaction }),
      log: { error: () => {} },
      secretKey: 'secret',
    })
    await tasks.listVersion(ada.id, { limit: 200, q: 'milk' })
    await tasks.changesState(ada.id, {})

    expect(statements).toHaveLength(2)
    for (const text of statements) {
      expect(text).toContain('"user_versions"')
      expect(text).not.toMatch(/"(tasks|lists|task_tombstones)"/)
    }
  })

  test('has no tag for a page and a total between which something was written', async () => {
    for (const kind of ['tasks', 'lists'] as const) {
      const ada = await api.user()
      const write = () => api.post(`/${kind}`, { token: ada.token, json: { title: 'x', name: 'x' } })
      await write()
      let page: Promise<unknown> | undefined
      const query: typeof api.driver.query = async (text, ...rest) => {
        // The statement with the total waits until the page was read and another row was written.
        if (page) await page.then(write)
        const answer = api.driver.query(text, ...rest)
        page ??= answer
        return answer
      }
      const db = createDb({ query, transaction: api.driver.transaction })
      const services = {
        tasks: createTaskService({ db, log: { error: () => {} }, secretKey: 'secret' }),
        lists: createListService({ db, secretKey: 'secret' }),
      }

      const { total, version } = await services[kind].list(ada.id, { total: true })

      expect({ kind, total, version }).toEqual({ kind, total: 2, version: undefined })
    }
  })

  test('never has one tag for two answers, whatever is written meanwhile', async () => {
    const ada = await api.user()
    const { token } = ada
    const answers = new Map<string, string>()
    let isOver = false
    const read = async (path: string) => {
      while (!isOver) {
        const answer = await api.get(path, { token })
        const { total } = { total: answer.headers.get('x-total-count') }
        const tag = answer.headers.get('etag')
        if (tag === null) continue
        const text = JSON.stringify([answer.body, total])
        expect(answers.get(tag) ?? text).toBe(text)
        answers.set(tag, text)
      }
    }
    const readers = ['/tasks?limit=5&total=true', '/tasks/changes?limit=3', '/lists?counts=true'].map(read)
    const writers = Array.from({ length: 3 }, async (_, writer) => {
      for (let i = 0; i < 15; i++) {
        const { id } = await api.task(ada, { title: `${writer}.${i}` })
        if (i % 3 === 0) await api.delete(`/tasks/${id}${i % 2 ? '?permanent=true' : ''}`, { token })
      }
    })
    await Promise.all(writers)
    isOver = true
    await Promise.all(readers)
    expect(answers.size).toBeGreaterThan(3)
  })
})

describe('the tag of an answer', () => {
  const request = (url: string) => new Request(url)
  const tags = createAnswerTags('secret', 'form')
  const tag = tags('ada', request('http://host/api/tasks?limit=2'))(7)

  test.each([
    ['another user', tags('bob', request('http://host/api/tasks?limit=2'))(7)],
    ['another query', tags('ada', request('http://host/api/tasks?limit=3'))(7)],
    ['another path', tags('ada', request('http://host/api/v1/tasks?limit=2'))(7)],
    ['another version', tags('ada', request('http://host/api/tasks?limit=2'))(8)],
    [
      'another secret, which signs the cursors in it',
      createAnswerTags('secret two', 'form')('ada', request('http://host/api/tasks?limit=2'))(7),
    ],
    [
      'another form of a task, in another release',
      createAnswerTags('secret', 'form two')('ada', request('http://host/api/tasks?limit=2'))(7),
    ],
  ])('differs for %s', (_, other) => {
    expect(other).not.toBe(tag)
  })

  test('costs no statement for a client that names none', async () => {
    const readVersion = () => Promise.reject(new Error('not asked for'))
    expect(await notModified({ headers: {} }, undefined, String, readVersion)).toBeUndefined()
  })

  test('is the same whatever name the client calls the service by', () => {
    expect(tags('ada', request('https://other:8000/api/tasks?limit=2'))(7)).toBe(tag)
  })
})
