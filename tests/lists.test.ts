import { expect, test } from 'bun:test'
import { createDb } from '../src/db/drizzle.ts'
import { createCursors } from '../src/lib/cursor.ts'
import { createListService } from '../src/modules/lists/service.ts'
import type { Task } from '../src/modules/tasks/model.ts'
import { byHand } from './support/by-hand.ts'
import { leastCpuMs } from './support/cpu.ts'
import { onBothDatabases, type Service, startService, type User } from './support/harness.ts'
import { serviceOn } from './support/task-service.ts'

/** A search for this many words. */
const words = (count: number) => Array.from({ length: count }, (_, i) => `w${10 + i}`).join('+')

/** Every page from an address on, by following `Link`. */
async function pages(api: Service, token: string, address: string) {
  const all: Task[][] = []
  for (let next: string | undefined = address; next !== undefined; ) {
    const answer = await api.get(next, { token })
    if (answer.status !== 200)
      throw new Error(`${next} answered ${answer.status}: ${JSON.stringify(answer.body)}`)
    all.push(answer.body)
    const link = answer.headers.get('link')
    next = link?.match(/^<\/api\/v1(\/[^>]*)>; rel="next"$/)?.[1]
    if (link && next === undefined) throw new Error(`strange link ${link}`)
    if (all.length > 100) throw new Error('pages without an end')
  }
  return all
}

onBothDatabases('lists', api => {
  const titles = async (token: string, query: string) => {
    const { status, body } = await api.get(`/tasks?${query}`, { token })
    expect(status).toBe(200)
    return body.map((task: { title: string }) => task.title)
  }

  /** Thirty tasks that differ in everything, with ties. */
  async function many(): Promise<User> {
    const ada = await api.user()
    const operations = Array.from({ length: 30 }, (_, i) => ({
      op: 'create',
      task: {
        title: ['b', 'a', 'B', 'ä', '🦆'][i % 5],
        status: ['pending', 'in_progress', 'completed'][i % 3],
        priority: i % 4,
        position: ['', 'a', 'a0', 'B'][i % 4],
        due_at: i % 3 === 0 ? null : `2026-11-${10 + (i % 7)}T00:00:00.00000${i % 2}Z`,
        tags: [`t${i % 2}`, 'all'],
      },
    }))
    // In three batches: the tasks of one are made at the same moment.
    for (const at of [0, 10, 20]) {
      const { status } = await api.post('/tasks/batch', {
        token: ada.token,
        json: { operations: operations.slice(at, at + 10) },
      })
      expect(status).toBe(200)
    }
    return ada
  }

  test('the pages of every order are its one big page, cut', async () => {
    const ada = await many()
    const orders = [
      '',
      'created_at',
      '-created_at',
      'updated_at',
      '-updated_at',
      'due_at',
      '-due_at',
      'priority',
      '-priority',
      'title',
      '-title',
      'status',
      '-status',
      'position',
      '-position',
      '-priority,due_at',
      'due_at,-priority,title',
      'status,priority,-title,position,due_at,updated_at,-created_at',
      '-status,-due_at',
      'title,title,-title',
    ]
    for (const sort of orders) {
      const query = sort && `sort=${sort}&`
      const { body: whole } = await api.get(`/tasks?${query}limit=200`, { token: ada.token })

      const cut = await pages(api, ada.token, `/tasks?${query}limit=7`)

      expect(whole).toHaveLength(30)
      expect(new Set(whole.map((task: { id: string }) => task.id)).size).toBe(30)
      expect(cut.map(page => page.length)).toEqual([7, 7, 7, 7, 2])
      expect(cut.flat()).toEqual(whole)
    }
  })

  test('a filter with an index of its own returns the same pages, whether it finds few tasks or many', async () => {
    const ada = await api.user()
    for (const tags of [['some', 'most'], ['most'], ['most'], []]) {
      const operations = Array.from({ length: 75 }, (_, i) => ({
        op: 'create',
        task: { title: `${i}`, tags, due_at: `2026-11-${10 + (i % 15)}T00:00:00Z`, priority: i % 2 },
      }))
      await api.post('/tasks/batch', { token: ada.token, json: { operations } })
    }
    const { body: one } = await api.get('/tasks?limit=200', { token: ada.token })
    const { body: two } = await api.get('/tasks?limit=200&offset=200', { token: ada.token })
    const all: Task[] = [...one, ...two]
    const cases: [string, (task: Task) => boolean][] = [
      ['tag=some', task => task.tags.includes('some')],
      ['tag=most', task => task.tags.includes('most')],
      ['tag=most&tag=some&priority=1', task => task.tags.includes('most') && task.priority === 1],
      ['due_before=2026-11-11T00:00:00Z', task => task.due_at! < '2026-11-11'],
      ['due_after=2026-11-10T00:00:00Z', task => task.due_at! > '2026-11-10T00:00:00.000000Z'],
      ['updated_after=2020-01-01T00:00:00Z&tag=most', task => task.tags.includes('most')],
      ['updated_after=2020-01-01T00:00:00Z', () => true],
      [`updated_after=${all[50]!.updated_at}`, task => task.updated_at > all[50]!.updated_at],
    ]
    for (const [query, matches] of cases) {
      const expected = all.filter(matches)

      const cut = await pages(api, ada.token, `/tasks?${query}&limit=60&total=true`)
      const byPriority = await pages(api, ada.token, `/tasks?${query}&limit=70&sort=priority,-created_at`)
      const behind = await api.get(`/tasks?${query}&limit=5&offset=3`, { token: ada.token })

      expect(cut.flat()).toEqual(expected)
      expect(byPriority.flat().map(task => task.priority)).toEqual(
        expected.map(task => task.priority).toSorted((a, b) => a - b),
      )
      expect(new Set(byPriority.flat().map(task => task.id)).size).toBe(expected.length)
      expect(behind.body).toEqual(expected.slice(3, 8))
    }
  }, 30_000)

  test('a key that comes again decides nothing, and every next page can be asked for', async () => {
    const ada = await many()
    for (const last of ['z', 'y']) await api.task(ada, { title: `${'🦆'.repeat(199)}${last}` })
    const sorted = (sort: string) => pages(api, ada.token, `/tasks?sort=${sort}&limit=1`)

    for (const [repeated, sort] of [
      [`-title,${Array(24).fill('title').join()},-title`, '-title'],
      ['priority,-title,-priority,title', 'priority,-title'],
    ] as const) {
      const found = await sorted(repeated)
      expect(found).toHaveLength(32)
      const fields = ({ title, priority }: Task) => [title, priority]
      expect(found.flat().map(fields)).toEqual((await sorted(sort)).flat().map(fields))
    }
  })

  test('an order is that of its keys, texts byte by byte, no date last', async () => {
    const ada = await many()
    const values = async (sort: string, field: string) => {
      const { body } = await api.get(`/tasks?sort=${sort}&limit=200`, { token: ada.token })
      return [...new Set(body.map((task: Record<string, unknown>) => task[field]))]
    }

    expect(await values('title', 'title')).toEqual(['B', 'a', 'b', 'ä', '🦆'])
    expect(await values('-position', 'position')).toEqual(['a0', 'a', 'B', ''])
    expect(await values('-priority', 'priority')).toEqual([3, 2, 1, 0])
    expect(await values('status', 'status')).toEqual(['completed', 'in_progress', 'pending'])
    const due = (await values('due_at', 'due_at')) as (string | null)[]
    expect(due.at(-1)).toBeNull()
    expect(due.slice(0, -1)).toEqual(due.slice(0, -1).toSorted())
    expect((await values('-due_at', 'due_at'))[0]).toBeNull()
  })

  test.each([
    ['-priority', -1],
    ['-priority,status', 1],
    ['priority,-status', -1],
  ])('what is equal in %s is in the order of the ids, in the direction of the last key', async (sort, by) => {
    const ada = await many()

    const { body } = await api.get(`/tasks?sort=${sort}&limit=200`, { token: ada.token })

    const sorted = body.toSorted((a: Task, b: Task) => {
      const key = (task: Task) => `${sort.includes('status') ? task.status : ''}`
      return a.priority !== b.priority || key(a) !== key(b) ? 0 : a.id < b.id ? -by : by
    })
    expect(body).toEqual(sorted)
  })

  test('a page is not moved by what is made, changed or deleted in front of it', async () => {
    const ada = await api.user()
    const tasks = []
    for (const title of ['a', 'b', 'c', 'd']) tasks.push(await api.task(ada, { title }))
    const first = await api.get('/tasks?limit=2', { token: ada.token })
    await api.task(ada, { title: 'e' })
    await api.delete(`/tasks/${tasks[3].id}`, { token: ada.token })
    await api.delete(`/tasks/${tasks[2].id}?permanent=true`, { token: ada.token })

    const second = await pages(api, ada.token, first.headers.get('link')!.match(/v1([^>]*)/)![1]!)

    expect(second.flat()).toEqual([tasks[1], tasks[0]])
  })

  test('the address of the next page keeps the filters and the prefix, and drops the offset', async () => {
    const ada = await many()

    const answer = await fetch(
      `${api.url}/api/tasks/?offset=3&&status=pending&tag=all&tag=t%2C&limit=2&total=true&`,
      {
        headers: { authorization: `Bearer ${ada.token}` },
      },
    )

    const [, address] = answer.headers.get('link')!.match(/^<([^>]*)>; rel="next"$/)!
    expect(address).toMatch(
      /^\/api\/tasks\/\?status=pending&tag=all&tag=t%2C&limit=2&total=true&cursor=[\w-]+$/,
    )
    expect(answer.headers.get('x-total-count')).toBe('10')
    const next = await fetch(api.url + address, { headers: { authorization: `Bearer ${ada.token}` } })
    expect(await next.json()).toEqual(
      (await api.get('/tasks?status=pending&offset=5&limit=2', { token: ada.token })).body,
    )
  })

  test('the address of the next page drops cursor and offset however their names are written', async () => {
    const ada = await many()
    const next = async (path: string) =>
      (await api.get(path, { token: ada.token })).headers.get('link')!.match(/v1([^>]*)/)![1]!

    const second = await next('/tasks?%6Fffset=1&limit=1')
    const third = await next(second.replace('cursor=', '%63ursor='))

    for (const path of [second, third]) expect(path).toMatch(/^\/tasks\?limit=1&cursor=[\w-]+$/)
    expect((await api.get(third, { token: ada.token })).body).toEqual(
      (await api.get('/tasks?offset=3&limit=1', { token: ada.token })).body,
    )
  })

  test('a page has fifty tasks by default', async () => {
    const ada = await api.user()
    const operations = Array.from({ length: 51 }, () => ({ op: 'create', task: { title: 'x' } }))
    await api.post('/tasks/batch', { token: ada.token, json: { operations } })

    const read = async (path: string) => {
      const { body, headers } = await api.get(path, { token: ada.token })
      return [(body.tasks ?? body).length, headers.has('link') || body.has_more]
    }

    for (const path of ['/tasks', '/tasks?sort=title', '/tasks/changes'])
      expect([path, ...(await read(path))]).toEqual([path, 50, true])
    await byHand(api.sql, 'update tasks set deleted_at = now() where user_id = $1', [ada.id])
    expect(await read('/tasks/trash')).toEqual([50, true])
  })

  test('a page ends before the first task of the next one, whatever that says in its texts', async () => {
    const user = await api.user()
    const first = await api.task(user)
    const title = `",{"id":"${first.id}"`
    const changed = await api.patch(`/tasks/${first.id}`, { token: user.token, json: { title } })
    const second = await api.task(user, { title, tags: [`,{"id":"${first.id}"`.slice(0, 50)] })

    const { body, headers } = await api.get('/tasks?limit=1', { token: user.token })
    expect(body).toEqual([second])
    const next = headers.get('link')!.match(/\/tasks[^>]+/)![0]
    expect((await api.get(next, { token: user.token })).body).toEqual([changed.body])
  })

  test('a page that ends the list has no next one, and only who asks gets a total', async () => {
    const ada = await api.user()
    await api.task(ada)
    await api.task(ada)

    const exact = await api.get('/tasks?limit=2', { token: ada.token })
    const empty = await api.get('/tasks?status=completed&total=true', { token: ada.token })

    expect([exact.headers.has('link'), exact.headers.has('x-total-count')]).toEqual([false, false])
    expect(empty.headers.get('x-total-count')).toBe('0')
  })

  test('a cursor is for its user, its order and its filters, and not for an offset', async () => {
    const ada = await many()
    const bob = await many()
    const cursorIn = (headers: Headers) =>
      new URLSearchParams(headers.get('link')!.match(/\?([^>]*)/)![1]).get('cursor')!
    const get = (query: string, token = ada.token) => api.get(`/tasks?${query}`, { token })
    const cursorOf = async (sort: string) => cursorIn((await get(`limit=2&sort=${sort}`)).headers)
    const cursor = await cursorOf('title')

    expect((await get(`sort=title&cursor=${cursor}`)).status).toBe(200)
    for (const refused of [
      await get(`sort=title&cursor=${cursor}`, bob.token),
      await get(`sort=-title&cursor=${cursor}`),
      await get(`sort=title&cursor=${await cursorOf('title,due_at')}`),
      await get(`cursor=${cursor}`),
      await get(`sort=title&cursor=${cursor.slice(0, -2)}`),
      await get(`sort=title&cursor=${cursor}%00`),
      await get('cursor='),
      await get(`cursor=${'A'.repeat(8001)}`),
    ]) {
      expect(refused).toMatchObject({ status: 422, body: { detail: [{ loc: ['query', 'cursor'] }] } })
    }
    const longest = await get(`cursor=${'A'.repeat(8000)}`)
    expect(longest).toMatchObject({ status: 422, body: { detail: [{ type: 'cursor_invalid' }] } })
    expect(await get(`sort=title&cursor=${cursor}&offset=1`)).toMatchObject({
      status: 422,
      body: { detail: [{ loc: ['query', 'offset'] }] },
    })
    for (const filter of [
      'tag=all',
      'priority=0',
      'q=a',
      'created_before=2999-01-01T00:00:00Z',
      'list=none',
    ]) {
      const filtered = await get(`limit=2&${filter}`)
      expect(filtered.status).toBe(200)
      const cursor = cursorIn(filtered.headers)
      // Another size, a total and what filters nothing make no other list.
      for (const same of ['limit=1&total=true&_=1', 'overdue=false', ...(filter === 'q=a' ? [] : ['q=+'])])
        expect((await get(`${same}&${filter}&cursor=${cursor}`)).status).toBe(200)
      for (const other of ['', 'status=pending&', 'overdue=true&'])
        expect(await get(`${other}${other && filter}&cursor=${cursor}`)).toMatchObject({
          status: 422,
          body: { detail: [{ loc: ['query', 'cursor'], type: 'cursor_invalid' }] },
        })
    }
  })

  test('a cursor that was signed with another secret is refused', async () => {
    const ada = await api.user()
    for (let i = 0; i < 2; i++) {
      await api.task(ada)
      await api.post('/lists', { token: ada.token, json: { name: 'x' } })
    }
    const listsOf = (secretKey: string) => createListService({ db: createDb(api.driver), secretKey })
    for (const serviceOf of [(secretKey: string) => serviceOn(api, secretKey), listsOf]) {
      const page = (secretKey: string, cursor?: string) =>
        serviceOf(secretKey).list(ada.id, { limit: 1, ...(cursor && { cursor }) })
      const { next } = await page('a secret')

      expect((await page('a secret', next)).items).not.toBe('')
      await expect(page('another', next)).rejects.toMatchObject({ code: 'validation_failed' })
    }
  })

  test('every filter picks what it says, and all of them can be combined', async () => {
    const ada = await api.user()
    // The embedded database's clock counts milliseconds, and it makes more than one task in each.
    const at = async (title: string, json: object) => {
      const task = await api.task(ada, { title, ...json })
      await Bun.sleep(2)
      return task
    }
    await at('late', { due_at: '2020-01-01T00:00:00Z', priority: 1, tags: ['home'] })
    await at('done', { due_at: '2020-01-02T00:00:00Z', status: 'completed', tags: ['work, mine', 'home'] })
    const doing = await at('doing', { due_at: '2999-01-01T00:00:00Z', status: 'in_progress', priority: 4 })
    const plain = await at('plain', { tags: ['[x]'] })
    const get = (query: string) => titles(ada.token, query)

    expect(await get('status=pending')).toEqual(['plain', 'late'])
    expect(await get('status=pending&status=in_progress')).toEqual(['plain', 'doing', 'late'])
    expect(await get('status=pending&status=completed')).toEqual(['plain', 'done', 'late'])
    expect(await get('priority=4')).toEqual(['doing'])
    expect(await get('priority=0')).toEqual(['plain', 'done'])
    expect(await get('tag=home')).toEqual(['done', 'late'])
    expect(await get('tag=work,%20mine')).toEqual(['done'])
    expect(await get('tag=work')).toEqual([])
    expect(await get('tag=%5Bx%5D&tag=home')).toEqual(['plain', 'done', 'late'])
    expect(await get('overdue=true')).toEqual(['late'])
    expect(await get('overdue=false')).toEqual(['plain', 'doing', 'done', 'late'])
    expect(await get('due_before=2020-01-02T00:00:00Z')).toEqual(['late'])
    // Finer than a microsecond is cut off, not rounded.
    expect(await get('due_before=2020-01-01T23:59:59.9999999Z')).toEqual(['late'])
    expect(await get('due_after=2020-01-01T23:59:59.9999999Z')).toEqual(['doing', 'done'])
    expect(await get('due_after=2020-01-01T00:00:00Z')).toEqual(['doing', 'done'])
    expect(await get('due_after=2020-01-01T01:00:00%2B01:00')).toEqual(['doing', 'done'])
    expect(await get('due_after=2020-01-01T01:00:00+01:00')).toEqual(['doing', 'done'])
    for (const name of ['due_before', 'created_after', 'created_before', 'updated_after'])
      await get(`${name}=2020-01-01T01:00:00+01:00`)
    expect(await get(`created_before=${doing.created_at}`)).toEqual(['done', 'late'])
    expect(await get(`created_after=${doing.created_at}`)).toEqual(['plain'])
    const filters = [
      'status=pending',
      'priority=0',
      'tag=home',
      'overdue=true',
      'q=late',
      'list=none',
      'parent=none',
    ]
    const found = new Map<string, string[]>()
    for (const filter of [...filters, 'due_before=2020-01-02T00:00:00Z']) found.set(filter, await get(filter))
    for (const [one, titles] of found)
      for (const [other, others] of found) {
        const both = titles.filter(title => others.includes(title))
        if (one !== other)
          expect([one, other, ...(await get(`${one}&${other}`))]).toEqual([one, other, ...both])
      }
    await api.patch(`/tasks/${doing.id}`, { token: ada.token, json: { title: 'did' } })
    expect(await get(`updated_after=${plain.updated_at}`)).toEqual(['did'])
    expect(
      await get(
        'status=pending&priority=1&tag=home&q=lat&due_before=2021-01-01T00:00:00Z&due_after=2019-01-01T00:00:00Z&created_after=2019-01-01T00:00:00Z&created_before=2999-01-01T00:00:00Z&updated_after=2019-01-01T00:00:00Z&overdue=true&sort=-priority,title&total=true',
      ),
    ).toEqual(['late'])
    const due_at = '2020-01-03T00:00:00Z'
    await api.patch(`/tasks/${doing.id}`, { token: ada.token, json: { due_at } })
    expect(await get('overdue=true')).toEqual(['did', 'late'])
  })

  test('a filter without a value, as an assistant may send it, picks every task', async () => {
    const ada = await api.user()
    await api.task(ada)

    for (const filter of [{ status: [] }, { tag: [] }, { list: [] }, { parent: [] }])
      expect((await serviceOn(api).list(ada.id, filter)).items).toContain('Buy milk')
  })

  test('q finds words and beginnings of words, in any letters, in title and description', async () => {
    const ada = await api.user()
    const bob = await api.user()
    for (const [title, description] of [
      ['Buy milk', 'two litres'],
      ['Crème brûlée', null],
      ['Straße fegen', null],
      ['买牛奶', '今天'],
      ['ОТЧЁТ сдать', null],
      ['100% sure_thing', 'a\\b'],
      ['feed the 🦆', null],
    ]) {
      await api.task(ada, { title, description })
    }
    await api.task(bob, { title: 'milk of bob' })
    const find = (q: string) => titles(ada.token, `q=${encodeURIComponent(q)}`)

    expect(await find('MILK')).toEqual(['Buy milk'])
    expect(await find('mil')).toEqual(['Buy milk'])
    expect(await find('ilk')).toEqual([])
    expect(await find('litr bu')).toEqual(['Buy milk'])
    expect(await find('milk bread')).toEqual([])
    expect(await find('creme')).toEqual(['Crème brûlée'])
    expect(await find('CRÈME, BRUL')).toEqual(['Crème brûlée'])
    expect(await find('strasse')).toEqual(['Straße fegen'])
    expect(await find('牛奶')).toEqual(['买牛奶'])
    expect(await find('奶今')).toEqual([])
    expect(await find('отчет')).toEqual(['ОТЧЁТ сдать'])
    expect(await find('100')).toEqual(['100% sure_thing'])
    for (const nothing of ['%', '_', '\\', '!!!', '%%%milk_']) {
      expect(await find(nothing)).toEqual(nothing.includes('milk') ? ['Buy milk'] : [])
    }
    expect(await find('🦆')).toEqual(['feed the 🦆'])
    // Twenty words count, and the beginning of another one or the same one again do not.
    await api.task(ada, { title: words(20).replaceAll('+', ' '), description: '牛奶'.repeat(11) })
    expect(await titles(ada.token, `q=${words(20)}+w+W10+w1`)).toHaveLength(1)
    expect(await find('牛奶'.repeat(10))).toHaveLength(1)
    expect(await find(' ')).toHaveLength(8)
    expect(await find('')).toHaveLength(8)
  })

  test('what is searched follows every change', async () => {
    const ada = await api.user()
    const task = await api.task(ada, { title: 'old title', description: 'old text' })
    const change = (json: object) => api.patch(`/tasks/${task.id}`, { token: ada.token, json })

    await change({ title: 'new title' })
    expect(await titles(ada.token, 'q=old+text')).toEqual(['new title'])
    await change({ description: null })
    expect(await titles(ada.token, 'q=old')).toEqual([])
    await api.post('/tasks/batch', {
      token: ada.token,
      json: { operations: [{ op: 'update', id: task.id, task: { description: 'other' } }] },
    })
    expect(await titles(ada.token, 'q=other+new')).toEqual(['new title'])
  })

  test.each([
    ['limit=0', 'limit'],
    ['limit=201', 'limit'],
    ['limit=x', 'limit'],
    ['limit=', 'limit'],
    ['limit=1.5', 'limit'],
    ['limit=1e400', 'limit'],
    ['limit=99999999999999999999', 'limit'],
    ['offset=-1', 'offset'],
    ['offset=10001', 'offset'],
    ['sort=', 'sort'],
    ['sort=id', 'sort'],
    ['sort=title,', 'sort'],
    ['sort=--title', 'sort'],
    ['sort=title;drop', 'sort'],
    ['sort=user_id', 'sort'],
    [`sort=${'title,'.repeat(50)}title`, 'sort'],
    ['status=done', 'status'],
    [Array(4).fill('status=pending').join('&'), 'status'],
    ['priority=5', 'priority'],
    ['priority=high', 'priority'],
    [`tag=${'x'.repeat(51)}`, 'tag'],
    ['tag=%00', 'tag'],
    [Array(21).fill('tag=x').join('&'), 'tag'],
    ['tag=', 'tag'],
    ['tag[]=home&tag[]=%20', 'tag'],
    [`q=${'x'.repeat(201)}`, 'q'],
    ['q=%00', 'q'],
    [`q=${words(21)}`, 'q'],
    [`q=${'牛奶'.repeat(10)}今+${'牛'.repeat(20)}`, 'q'],
    [`q=${'🦆'.repeat(21)}`, 'q'],
    ['due_before=tomorrow', 'due_before'],
    ['due_after=2026-02-31T00:00:00Z', 'due_after'],
    ['created_before=infinity', 'created_before'],
    ['created_after=', 'created_after'],
    ['updated_after=10000-01-01T00:00:00Z', 'updated_after'],
    ['overdue=perhaps', 'overdue'],
    ['total=2', 'total'],
    ['total=truex', 'total'],
    ['total=', 'total'],
  ])('%s is refused', async (query, name) => {
    const ada = await api.user()

    const answer = await api.get(`/tasks?${query}`, { token: ada.token })

    expect(answer.status).toBe(422)
    expect(answer.body.detail[0].loc.slice(0, 2)).toEqual(['query', name])
  })

  test.each([
    ['true', '1'],
    ['True', '1'],
    ['1', '1'],
    ['false', null],
    ['False', null],
    ['0', null],
  ])('total=%s, as programs in Python and PHP write it, is understood', async (total, count) => {
    const ada = await api.user()
    await api.task(ada)

    const { status, headers } = await api.get(`/tasks?total=${total}`, { token: ada.token })

    expect([status, headers.get('x-total-count')]).toEqual([200, count])
  })

  test('what is refused is explained in words that help', async () => {
    const { token } = await api.user()
    const problems = async (query: string) =>
      (await api.get(`/tasks${query}`, { token })).body.detail.map((problem: { msg: string }) => problem.msg)

    expect(await problems('?sort=size')).toEqual([
      'String should be a comma list of title, status, priority, due_at, position, created_at, updated_at, each with - in front for descending',
    ])
    expect(await problems(`?tag=a&tag=${'x'.repeat(51)}`)).toEqual([
      'String should have at most 50 characters',
    ])
    expect(await problems(`?q=${words(21)}&limit=0`)).toEqual([
      'Input should be at least 1',
      'String should have at most 20 words, or characters of a script without spaces',
    ])
  })

  test.each([
    'limit=1&limit=2',
    'q=%ZZ%',
    'q=%F0%9F',
    'tag=%ZZ&tag=%FF',
    'sort=title&sort=priority',
    'q=a&q=b',
    'cursor=a&cursor=b',
    'status=pending,completed',
    'unknown=1&__proto__=2&constructor=3',
    '%00=%00',
    '&&&=&=',
    'due_before=2020-01-01T00:00:00Z&due_before=x',
    `q=${encodeURIComponent('ﷺ'.repeat(200))}`,
    `q=${encodeURIComponent('a '.repeat(100))}`,
  ])('%s never fails', async query => {
    const ada = await api.user()
    await api.task(ada)

    const answer = await api.get(`/tasks?${query}`, { token: ada.token })

    expect([200, 422]).toContain(answer.status)
  })

  test('hundreds of different lists are answered, more than are remembered', async () => {
    const ada = await api.user()
    await api.task(ada, { title: 'x', priority: 1 })
    const keys = ['title', 'status', 'priority', 'position', 'due_at', 'updated_at', 'created_at']
    const sorts = keys.flatMap(a => keys.flatMap(b => keys.map(c => `${a},-${b},${c}`)))

    for (const sort of sorts) expect(await titles(ada.token, `sort=${sort}&priority=1`)).toEqual(['x'])
    expect(await titles(ada.token, '')).toEqual(['x'])
  }, 30_000)
})

test('no search through long texts stops the embedded database for long', async () => {
  const api = await startService('embedded')
  const { token } = await api.user()
  const syllables = [...'각간갇갈갉갊감갑값갓갔강갖갗같갚갛']
  const task = { title: syllables.join(''), description: '가'.repeat(2000) }
  const operations = Array(100).fill({ op: 'create', task })
  for (let i = 0; i < 2; i++) await api.post('/tasks/batch', { token, json: { operations } })
  const search = (q: string) => async () =>
    expect((await api.get(`/tasks?q=${encodeURIComponent(q)}`, { token })).body).toEqual([])

  const least = await leastCpuMs(
    {
      word: search('zzz'),
      phrase: search(`${'가'.repeat(19)}나`),
      words: search(`${syllables.join(' ')} 나`),
      none: search('%_%'),
    },
    10,
  )

  await api.stop()
  expect(least.phrase).toBeLessThan(2.5 * least.word!)
  expect(least.words).toBeLessThan(2.5 * least.word!)
  expect(least.none).toBeLessThan(least.word!)
}, 60_000)

test('a cursor carries 128 bits that only the service can make', () => {
  const cursor = createCursors('a secret').sign('list', 'ada', 'content')
  const bytes = Buffer.from(cursor, 'base64url')

  expect(bytes.subarray(16).toString()).toBe('content')
})
