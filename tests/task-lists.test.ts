import { expect, test } from 'bun:test'
import { onBothDatabases, type Sent, type User } from './support/harness.ts'
import { expectError } from './support/wire.ts'

onBothDatabases('lists', api => {
  const make = async ({ token }: { token: string }, json: object = {}) => {
    const { status, body } = await api.post('/lists', { token, json: { name: 'Groceries', ...json } })
    expect(status).toBe(201)
    return body
  }
  const numberOf = async ({ id }: User) =>
    (await api.sql('select last_version from user_versions where user_id = $1', [id]))[0]![0]
  /** The titles of a list, oldest first, whether it is read in the default order or in another. */
  const tasksIn = async ({ token }: User, query: string) => {
    const [newestFirst, oldestFirst] = await Promise.all(
      ['', 'sort=created_at&'].map(async sort => {
        const { body } = await api.get(`/tasks?${sort}${query}`, { token })
        return body.map(({ title }: { title: string }) => title)
      }),
    )
    expect(newestFirst).toEqual(oldestFirst.toReversed())
    return oldestFirst
  }

  test('a new list is returned whole, with its address and its ETag, and is read again', async () => {
    const ada = await api.user()

    const made = await api.post('/lists', { token: ada.token, json: { name: 'Groceries', position: 'a0' } })
    const read = await api.get(`/lists/${made.body.id}`, { token: ada.token })

    expect(made.status).toBe(201)
    expect(made.body).toEqual({
      id: expect.any(String),
      name: 'Groceries',
      position: 'a0',
      created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/),
      updated_at: made.body.created_at,
      version: 1,
    })
    expect(made.headers.get('location')).toBe(`/api/v1/lists/${made.body.id}`)
    expect([made.headers.get('etag'), read.headers.get('etag')]).toEqual(['"1"', '"1"'])
    expect(read.body).toEqual(made.body)
    const second = await api.post('/lists', { token: ada.token, json: { name: 'Work' } })
    expect(second.body).toMatchObject({ position: '', version: 2 })
    expect(second.headers.get('etag')).toBe('"2"')
  })

  test('come by position, then id, in pages', async () => {
    const ada = await api.user()
    const made = []
    for (const position of ['b', 'a', 'B', 'a', '']) made.push(await make(ada, { position }))
    const sorted = made.toSorted((a, b) => (`${a.position} ${a.id}` < `${b.position} ${b.id}` ? -1 : 1))

    const all = await api.get('/lists?total=true', { token: ada.token })
    const rest = await api.get('/lists?offset=3', { token: ada.token })
    const pages = []
    for (let path: string | undefined = '/lists?limit=2'; path; ) {
      const { body, headers } = await api.get(path, { token: ada.token })
      pages.push(body)
      path = headers.get('link')?.match(/<\/api\/v1(.*)>; rel="next"/)?.[1]
    }

    expect(all.body).toEqual(sorted)
    expect([all.headers.get('x-total-count'), all.headers.get('link')]).toEqual(['5', null])
    expect(rest.headers.get('x-total-count')).toBeNull()
    for (const [offset, status] of [
      [500, 200],
      [501, 422],
    ])
      expect((await api.get(`/lists?offset=${offset}`, { token: ada.token })).status).toBe(status!)
    expect(pages.map(page => page.length)).toEqual([2, 2, 1])
    expect(pages.flat()).toEqual(sorted)
    expect(rest.body).toEqual(sorted.slice(3))
  })

  test('a parameter that is false is as if it was not sent, also one of tasks', async () => {
    const ada = await api.user()
    const { body: list } = await api.post('/lists', { token: ada.token, json: { name: 'x' } })
    await api.task(ada, { list_id: list.id })
    const read = async (path: string) => {
      const { status, body, headers } = await api.get(path, { token: ada.token })
      return [status, body, headers.has('etag'), headers.get('x-total-count')]
    }

    for (const [path, name] of [
      ['/lists', 'total'],
      ['/lists', 'counts'],
      [`/lists/${list.id}`, 'counts'],
      ['/tasks', 'total'],
      ['/tasks', 'overdue'],
    ])
      expect([path, name, ...(await read(`${path}?${name}=false`))]).toEqual([
        path,
        name,
        ...(await read(path!)),
      ])
  })

  test('are returned with their numbers of tasks when asked for', async () => {
    const ada = await api.user()
    const [one, two] = [await make(ada, { position: 'a' }), await make(ada, { position: 'b' })]
    await api.task(ada, { list_id: one.id })
    await api.task(ada, { list_id: one.id, status: 'in_progress' })
    await api.task(ada, { list_id: one.id, status: 'completed' })
    const trashed = await api.task(ada, { list_id: one.id })
    await api.delete(`/tasks/${trashed.id}`, { token: ada.token })
    await api.task(ada)

    const all = await api.get('/lists?counts=true&limit=1', { token: ada.token })
    const single = await api.get(`/lists/${one.id}?counts=true`, { token: ada.token })
    const without = await api.get('/lists?counts=false&limit=1', { token: ada.token })

    expect(all.body).toEqual([{ ...one, open: 2, total: 3 }])
    expect(without.body).toEqual([one])
    expect(all.headers.get('link')).toContain('counts=true&limit=1&cursor=')
    expect([single.body, single.headers.get('etag')]).toEqual([{ ...one, open: 2, total: 3 }, null])
    expect((await api.get(`/lists/${two.id}?counts=true`, { token: ada.token })).body).toMatchObject({
      open: 0,
      total: 0,
    })
  })

  test('of one user may have an id that another user has deleted', async () => {
    const [ada, bob] = [await api.user(), await api.user()]
    const { id } = await make(ada)
    await api.delete(`/lists/${id}`, { token: ada.token })

    expect(await make(bob, { id })).toMatchObject({ id, version: 1 })
  })

  test('are moved by their position alone', async () => {
    const ada = await api.user()
    const list = await make(ada, { position: 'a' })

    const moved = await api.patch(`/lists/${list.id}`, { token: ada.token, json: { position: 'b' } })

    expect(moved.body).toMatchObject({ name: list.name, position: 'b', version: 2 })
  })

  test('are changed as tasks are: only what was sent, with If-Match and If-None-Match', async () => {
    const ada = await api.user()
    const list = await make(ada, { position: 'a' })
    const at = `/lists/${list.id}`
    const change = (json: object, ifMatch?: string) =>
      api.patch(at, { token: ada.token, json, headers: ifMatch ? { 'if-match': ifMatch } : {} })

    const renamed = await change({ name: 'Errands' }, '"1"')
    const stale = await change({ name: 'Work' }, '"1"')
    const same = await change({ name: 'Errands', position: 'a' })
    const nothing = await change({})
    const known = await api.get(at, { token: ada.token, headers: { 'if-none-match': '"2"' } })
    const unwanted = await api.delete(at, { token: ada.token, headers: { 'if-match': '"1"' } })
    const existing = { token: ada.token, headers: { 'if-none-match': '*' } }
    const present = { token: ada.token, headers: { 'if-none-match': 'W/"2"' } }
    const overwritten = [
      await api.patch(at, { ...existing, json: { name: 'Work' } }),
      await api.patch(at, { ...present, json: { name: 'Work' } }),
      await api.delete(at, existing),
      await api.delete(at, present),
    ]

    expect(renamed.body).toEqual({
      ...list,
      name: 'Errands',
      version: 2,
      updated_at: renamed.body.updated_at,
    })
    expect(renamed.body.updated_at > list.updated_at).toBe(true)
    expect(renamed.headers.get('etag')).toBe('"2"')
    for (const { status, body } of [stale, unwanted, ...overwritten])
      expect({ status, body }).toMatchObject({
        status: 412,
        body: {
          code: 'precondition_failed',
          detail: 'The list has changed since',
          current: renamed.body,
        },
      })
    expect([same.body, nothing.body]).toEqual([renamed.body, renamed.body])
    expect([known.status, known.body, known.headers.get('etag')]).toEqual([304, undefined, '"2"'])
    expect(await numberOf(ada)).toBe(2)
  })

  test('a creation can be sent again, by id or by key', async () => {
    const ada = await api.user()
    const id = crypto.randomUUID()
    const post = (json: object, headers = {}) => api.post('/lists', { token: ada.token, json, headers })
    const byKey = { 'idempotency-key': 'k' }

    const first = await post({ id: id.toUpperCase(), name: 'a' })
    const again = await post({ id, name: 'b' })
    const keyed = await post({ name: 'c' }, byKey)
    const keyedAgain = await post({ name: 'c', position: '' }, byKey)
    const other = await post({ name: 'd' }, byKey)
    const elsewhere = await post({ name: 'c', position: 'a' }, byKey)
    const both = await post({ id, name: 'c' }, byKey)
    const wrong = await post({ name: 'c' }, { 'idempotency-key': 'x'.repeat(256) })
    for (const list of [first, keyed]) await api.delete(`/lists/${list.body.id}`, { token: ada.token })

    expect([again.status, again.body]).toEqual([201, first.body])
    expect(first.body.id).toBe(id)
    expect([keyedAgain.status, keyedAgain.body]).toEqual([201, keyed.body])
    for (const answer of [other, elsewhere]) expectError(answer, 422, 'idempotency_key_reused')
    expectError(both, 422, 'validation_failed')
    expect([wrong.status, wrong.body.detail[0].loc]).toEqual([422, ['header', 'idempotency-key']])
    expect(both.body.detail).toEqual([
      expect.objectContaining({ loc: ['body', 'id'], type: 'not_combinable' }),
    ])
    expectError(await post({ id, name: 'a' }), 409, 'id_used')
    expectError(await post({ name: 'c' }, byKey), 409, 'idempotency_key_used')
    expect((await api.get('/lists', { token: ada.token })).body).toEqual([])
  })

  test.each([
    [{}, ['name'], 'missing'],
    [{ name: '' }, ['name'], 'string_too_short'],
    [{ name: ' \u3000' }, ['name'], 'string_blank'],
    [{ name: '🦆'.repeat(101) }, ['name'], 'string_too_long'],
    [{ name: 'x', position: 'x'.repeat(256) }, ['position'], 'string_too_long'],
    [{ name: 'x', position: null }, ['position'], 'string_type'],
    [{ name: 'x', id: 'x' }, ['id'], 'uuid'],
    [{ name: 'x', id: '00000000-0000-0000-0000-000000000000' }, ['id'], 'uuid'],
  ])('%j is refused', async (json, path, type) => {
    const ada = await api.user()

    const answer = await api.post('/lists', { token: ada.token, json })

    expectError(answer, 422, 'validation_failed')
    expect(answer.body.detail).toEqual([{ loc: ['body', ...path], msg: expect.any(String), type }])
  })

  test('a hundred characters are a name, and 255 a position', async () => {
    const ada = await api.user()
    const longest = { name: '🦆'.repeat(100), position: '"\\🦆'.repeat(85) }

    expect(await make(ada, longest)).toMatchObject(longest)
  })

  test.each([
    ['lists_name_length', `name = repeat('x', 101)`],
    ['lists_name_length', `name = ''`],
    ['lists_name_not_blank', `name = '  '`],
    ['lists_position_length', `position = repeat('x', 256)`],
  ])('the database itself keeps %s', async (constraint, change) => {
    const ada = await api.user()
    const list = await make(ada)

    const failure = await api.sql(`update lists set ${change} where id = $1`, [list.id]).catch(error => error)

    expect(failure.constraint_name ?? failure.constraint).toBe(constraint)
  })

  test('a change by hand takes a number, as that of a task does', async () => {
    const ada = await api.user()
    const list = await make(ada)

    const failure = await api
      .sql(`update lists set name = 'by hand' where id = $1`, [list.id])
      .catch(error => error)

    expect(failure.message).toStartWith(
      `an update of list ${list.id} keeps its version 1: take the next one (`,
    )
    expect(failure.message).toContain(`where user_id = '${ada.id}' returning`)
  })

  test('every letter of ASCII is a name', async () => {
    const ada = await api.user()
    const names = [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz']

    for (const name of names) await make(ada, { name })

    const { body } = await api.get('/lists?limit=200', { token: ada.token })
    expect(body.map((list: { name: string }) => list.name)).toEqual(names)
  })

  test('a user has at most 500', async () => {
    const ada = await api.user()
    await api.sql(
      `insert into lists (id, user_id, name, version) select gen_random_uuid(), $1, 'x', i from generate_series(1, 499) i`,
      [ada.id],
    )
    await api.sql('update user_versions set last_version = 499 where user_id = $1', [ada.id])
    await make(ada)

    const answer = await api.post('/lists', { token: ada.token, json: { name: 'x' } })

    expectError(answer, 409, 'too_many_lists')
    expect(await numberOf(ada)).toBe(500)
    expect((await api.get('/lists', { token: ada.token })).body).toHaveLength(50)
  })

  test('another user’s list is 403, and none is 404', async () => {
    const [ada, bob] = [await api.user(), await api.user()]
    const list = await make(ada)
    const calls = (id: string) =>
      [
        ['GET', `/lists/${id}`],
        ['GET', `/lists/${id}?counts=true`],
        ['PATCH', `/lists/${id}`, { json: { name: 'x' } }],
        ['DELETE', `/lists/${id}`],
        ['DELETE', `/lists/${id}?tasks=trash`],
      ] as [string, string, Sent?][]

    for (const [method, path, sent] of calls(list.id))
      expectError(
        await api.request(method, path, { ...sent, token: bob.token }),
        403,
        'not_authorized',
        'Not authorized',
      )
    for (const id of [crypto.randomUUID(), 'x', '%00', bob.id])
      for (const [method, path, sent] of calls(id))
        expectError(
          await api.request(method, path, { ...sent, token: bob.token }),
          404,
          'list_not_found',
          'List not found',
        )
    expect(await numberOf(bob)).toBe(0)
    expect((await api.get('/lists', { token: ada.token })).body).toEqual([list])
  })

  test('a task is put into a list, moved and taken out, and lists are filtered by it', async () => {
    const ada = await api.user()
    const [one, two] = [await make(ada), await make(ada)]
    const task = await api.task(ada, { title: 'a', list_id: one.id.toUpperCase() })
    await api.task(ada, { title: 'b', list_id: two.id })
    await api.task(ada, { title: 'c' })

    expect(task).toMatchObject({ list_id: one.id, parent_id: null })
    expect(await tasksIn(ada, `list=${one.id}`)).toEqual(['a'])
    expect(await tasksIn(ada, `list=${one.id.toUpperCase()}`)).toEqual(['a'])
    expect(await tasksIn(ada, `list=${one.id}&list=${two.id}`)).toEqual(['a', 'b'])
    expect(await tasksIn(ada, `list[]=${two.id}&list[]=none`)).toEqual(['b', 'c'])
    expect(await tasksIn(ada, 'list=none')).toEqual(['c'])
    expect(await tasksIn(ada, `list=${crypto.randomUUID()}`)).toEqual([])
    const stats = async (query: string) => (await api.get(`/tasks/stats?${query}`, { token: ada.token })).body
    expect(await stats(`list=${one.id}`)).toMatchObject({ total: 1, pending: 1 })
    expect(await stats('list=none')).toMatchObject({ total: 1 })
    expect(await stats('')).toMatchObject({ total: 3 })
    for (const list_id of [two.id, null]) {
      const { body } = await api.patch(`/tasks/${task.id}`, { token: ada.token, json: { list_id } })
      expect(body).toMatchObject({ list_id, title: 'a' })
    }
    expect(await tasksIn(ada, 'list=none')).toEqual(['a', 'c'])
    const wrong = await api.get('/tasks?list=x', { token: ada.token })
    expectError(wrong, 422, 'validation_failed')
    expect(wrong.body.detail[0].msg).toContain('an id, or none')
  })

  test('an unknown list is 422, and another user’s is no different', async () => {
    const [ada, bob] = [await api.user(), await api.user()]
    const list = await make(ada)
    const task = await api.task(bob)
    const { token } = bob
    const answers = async (list_id: string) => {
      const headers = { 'idempotency-key': crypto.randomUUID() }
      const operation = { op: 'create', task: { title: 'x', list_id } }
      return [
        await api.post('/tasks', { token, json: { title: 'x', list_id } }),
        await api.post('/tasks', { token, json: { title: 'x', list_id }, headers }),
        await api.patch(`/tasks/${task.id}`, { token, json: { list_id } }),
        await api.post('/tasks/batch', {
          token,
          json: { operations: [{ op: 'create', task: { title: 'x' } }, operation] },
        }),
      ]
    }

    const [foreign, unknown] = [await answers(list.id), await answers(crypto.randomUUID())]

    for (const [i, answer] of [...foreign, ...unknown].entries()) {
      expect(answer).toMatchObject({ status: 422, body: { code: 'list_not_found' } })
      const loc = i % 4 === 3 ? ['body', 'operations', 1, 'task', 'list_id'] : ['body', 'list_id']
      expect(answer.body.detail).toEqual([{ loc, msg: 'List not found', type: 'list_not_found' }])
      expect(answer.body.index).toBe(i % 4 === 3 ? 1 : undefined)
    }
    expect(await numberOf(bob)).toBe(1)
  })

  test('a deleted list leaves its tasks in the inbox, each under a number of its own', async () => {
    const ada = await api.user()
    const list = await make(ada)
    const first = await api.task(ada, { title: 'a', list_id: list.id })
    await api.task(ada, { title: 'b', list_id: list.id })
    const trashed = await api.task(ada, { title: 'c', list_id: list.id })
    await api.delete(`/tasks/${trashed.id}`, { token: ada.token })
    const { cursor } = (await api.get('/tasks/changes', { token: ada.token })).body

    const answer = await api.delete(`/lists/${list.id}`, { token: ada.token })
    const changes = (await api.get(`/tasks/changes?since=${cursor}`, { token: ada.token })).body
    const restored = await api.post(`/tasks/${trashed.id}/restore`, { token: ada.token })

    expect([answer.status, answer.body]).toEqual([204, undefined])
    expect(changes).toMatchObject({
      tasks: [
        { title: 'a', list_id: null, version: 6 },
        { title: 'b', list_id: null, version: 7 },
      ],
      deleted: [trashed.id],
      lists: [],
      deleted_lists: [list.id],
    })
    expect(changes.tasks[0].updated_at > first.updated_at).toBe(true)
    expect(restored.body).toMatchObject({ list_id: null, version: 10 })
    expectError(await api.get(`/lists/${list.id}`, { token: ada.token }), 404, 'list_not_found')
  })

  test('or in the trash, children included', async () => {
    const ada = await api.user()
    const [list, kept] = [await make(ada), await make(ada)]
    const parent = await api.task(ada, { title: 'a', list_id: list.id })
    await api.task(ada, { title: 'child', parent_id: parent.id, list_id: kept.id })
    await api.task(ada, { title: 'other' })

    await api.delete(`/lists/${list.id}?tasks=trash`, { token: ada.token })
    const trash = (await api.get('/tasks/trash', { token: ada.token })).body

    expect(await tasksIn(ada, '')).toEqual(['other'])
    expect(trash.map(({ title, list_id }: never) => ({ title, list_id }))).toEqual(
      expect.arrayContaining([
        { title: 'a', list_id: null },
        { title: 'child', list_id: kept.id },
      ]),
    )
    await api.post(`/tasks/${parent.id}/restore`, { token: ada.token })
    expect(await tasksIn(ada, '')).toEqual(['a', 'child', 'other'])
    expectError(await api.delete(`/lists/${list.id}?tasks=x`, { token: ada.token }), 422, 'validation_failed')
  })

  test('leave the tasks that are in the trash where they are, deleted when they were', async () => {
    const ada = await api.user()
    const list = await make(ada)
    const task = await api.task(ada, { list_id: list.id })
    const child = await api.task(ada, { parent_id: task.id })
    for (const { id } of [child, task]) await api.delete(`/tasks/${id}`, { token: ada.token })
    const trash = async () => (await api.get('/tasks/trash', { token: ada.token })).body
    const [before, childBefore] = await trash()

    await api.delete(`/lists/${list.id}?tasks=trash`, { token: ada.token })

    expect(await trash()).toEqual([{ ...before, list_id: null, version: before.version + 1 }, childBefore])
  })

  test('are in the changes, under the one cursor and in their order', async () => {
    const ada = await api.user()
    const one = await make(ada)
    const [task, other] = [await api.task(ada, { list_id: one.id }), await api.task(ada)]
    const two = await make(ada, { name: 'Work' })
    const gone = await make(ada)
    await api.delete(`/lists/${gone.id}`, { token: ada.token })

    const seen: unknown[] = []
    let cursor = ''
    for (let more = true; more; ) {
      const { body } = await api.get(`/tasks/changes?limit=1${cursor && `&since=${cursor}`}`, {
        token: ada.token,
      })
      const { tasks, deleted, lists, deleted_lists, has_more } = body
      expect([...tasks, ...deleted, ...lists, ...deleted_lists]).toHaveLength(1)
      seen.push(tasks[0] ?? lists[0] ?? deleted_lists[0])
      cursor = body.cursor
      more = has_more
    }

    expect(seen).toEqual([one, task, other, two, gone.id])
  })
})
