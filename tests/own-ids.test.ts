import { describe, expect, test } from 'bun:test'
import { createDb } from '../src/db/drizzle.ts'
import { createIdempotency } from '../src/lib/idempotency.ts'
import { createListService } from '../src/modules/lists/service.ts'
import { requestText } from '../src/modules/tasks/to-columns.ts'
import { onBothDatabases, testSettings } from './support/harness.ts'
import { serviceOn } from './support/task-service.ts'
import { expectError } from './support/wire.ts'

test('what is kept of a request that may be repeated tells nothing without the secret', () => {
  const request = () => '{"title":"mine"}'
  const [here, there] = ['one secret', 'another'].map(secret =>
    createIdempotency(secret, 'tasks')('ada', { key: 'a key', request }),
  )

  expect(here!.id).not.toBe(there!.id)
  // Version 8 of RFC 9562, and its variant.
  for (const { id } of [here!, there!]) expect(id).toMatch(/^.{14}8.{4}[89ab]/)
  expect(here!.requestHash).not.toBe(there!.requestHash)
})

test('a request that names neither an id nor a key creates something new, which nothing is looked up for', () => {
  const request = () => {
    throw new Error('not asked for')
  }
  const identify = createIdempotency('one secret', 'tasks')
  const [one, two] = [identify('ada', { request }), identify('ada', { request })]

  expect(one).toEqual({ id: expect.any(String), mayExist: false, requestHash: null })
  expect(one.id).not.toBe(two.id)
})

test('what a request says has one text, whatever it spells out, that stays the same from release to release', () => {
  const spelledOut = { description: null, status: 'pending', tags: [], position: '' }

  const id = '019a9c3e-7b1f-7c4e-9a51-0d5f2f6f8b11'
  const idText = `[["list_id","${id}"],["parent_id","${id}"],["title","part"]]`

  expect(requestText({ title: 'part', list_id: id, parent_id: id.toUpperCase() })).toBe(idText)
  for (const rest of [{}, spelledOut])
    expect(
      requestText({ title: 'Buy milk', priority: 2, due_at: '2026-11-24T19:00:00+01:00', ...rest }),
    ).toBe('[["due_at","2026-11-24T18:00:00.000000Z"],["priority",2],["title","Buy milk"]]')
})

/** A random id as a front end makes it. */
const newId = () => crypto.randomUUID()

onBothDatabases('a task with an id of the client', api => {
  const create = (token: string, json: object, headers: Record<string, string> = {}) =>
    api.post('/tasks', { token, json: { title: 'mine', ...json }, headers })
  const list = async (token: string) => (await api.get('/tasks', { token })).body
  const change = (token: string, id: string, json: object) => api.patch(`/tasks/${id}`, { token, json })

  test('has that id, in lower case, and a repeat returns it as it is now and creates none', async () => {
    const ada = await api.user()
    const id = newId()

    const first = await create(ada.token, { id: id.toUpperCase() })
    const { body: changed } = await change(ada.token, id, { priority: 3 })
    const again = await create(ada.token, { id, title: 'another' })

    expect(first).toMatchObject({ status: 201, body: { id, title: 'mine', version: 1 } })
    expect(first.headers.get('location')).toBe(`/api/v1/tasks/${id}`)
    expect(again).toMatchObject({ status: 201, body: changed })
    expect(again.headers.get('etag')).toBe(`"${changed.version}"`)
    expect(await list(ada.token)).toEqual([changed])
    expect((await api.task(ada)).version).toBe(3)
  })

  test('that is in the trash or gone for good is a 409, and stays where it is', async () => {
    const ada = await api.user()
    const { id } = (await create(ada.token, { id: newId() })).body

    await api.delete(`/tasks/${id}`, { token: ada.token })
    expectError(await create(ada.token, { id }), 409, 'id_used')
    expect((await api.get('/tasks/trash', { token: ada.token })).body).toMatchObject([{ id, version: 2 }])

    await api.post(`/tasks/${id}/restore`, { token: ada.token })
    expect(await create(ada.token, { id })).toMatchObject({ status: 201, body: { id, version: 3 } })

    await api.delete(`/tasks/${id}?permanent=true`, { token: ada.token })
    expectError(await create(ada.token, { id }), 409, 'id_used')
    expect(await list(ada.token)).toEqual([])
  })

  test('may be created once more when its deletion is forgotten', async () => {
    const ada = await api.user()
    const { id } = (await create(ada.token, { id: newId() })).body
    await api.delete(`/tasks/${id}?permanent=true`, { token: ada.token })
    await api.sql(`update task_tombstones set deleted_at = now() - interval '91 days' where id = '${id}'`, [])
    await serviceOn(api).purge()

    expect(await create(ada.token, { id })).toMatchObject({ status: 201, body: { id, version: 3 } })
  })

  test('is no conflict with another user, who never learns of it', async () => {
    const [ada, bob] = [await api.user(), await api.user()]
    const id = newId()
    const { body: adas } = await create(ada.token, { id, title: 'of Ada' })

    const { status, body: bobs } = await create(bob.token, { id, title: 'of Bob' })
    expect([status, bobs.title, bobs.user_id, bobs.version]).toEqual([201, 'of Bob', bob.id, 1])
    expect((await create(bob.token, { id })).body).toEqual(bobs)

    await change(bob.token, id, { title: 'changed by Bob' })
    await api.delete(`/tasks/${id}`, { token: bob.token })
    // In the trash of Bob: a 404 as of any other task there, though Ada's is in her list.
    for (const answer of [
      await api.get(`/tasks/${id}`, { token: bob.token }),
      await change(bob.token, id, {}),
      await api.post('/tasks/batch', { token: bob.token, json: { operations: [{ op: 'delete', id }] } }),
    ])
      expect(answer).toMatchObject({ status: 404, body: { code: 'task_not_found' } })
    await api.delete(`/tasks/${id}?permanent=true`, { token: bob.token })
    expectError(await create(bob.token, { id }), 409, 'id_used')

    expect((await api.get(`/tasks/${id}`, { token: ada.token })).body).toEqual(adas)
    expect((await create(ada.token, { id })).body).toEqual(adas)
    expect(await list(ada.token)).toEqual([adas])
  })

  test.each([
    ['00000000-0000-0000-0000-000000000000', 'uuid'],
    ['ffffffff-ffff-ffff-ffff-ffffffffffff', 'uuid'],
    ['FFFFFFFF-ffff-FFFF-ffff-ffffffffffff', 'uuid'],
    [`{${newId()}}`, 'uuid'],
    [`urn:uuid:${newId()}`, 'uuid'],
    [newId().replaceAll('-', ''), 'uuid'],
    [`${newId()} `, 'uuid'],
    [`${newId()}\n`, 'uuid'],
    ['', 'uuid'],
    ['x'.repeat(10_000), 'uuid'],
    [`${newId()}\0`, 'string_unicode'],
    [7, 'string_type'],
    [null, 'string_type'],
    [['019a9c3e-7b1f-7c4e-9a51-0d5f2f6f8b11'], 'string_type'],
  ])('cannot have the id %j', async (id, type) => {
    const ada = await api.user()
    const answer = await create(ada.token, { id })
    expectError(answer, 422, 'validation_failed', [{ loc: ['body', 'id'], msg: expect.any(String), type }])
    expect(await list(ada.token)).toEqual([])
  })

  test.each([
    '00000000-0000-0000-0000-000000000001',
    'ffffffff-ffff-ffff-ffff-fffffffffffe',
    'f0f0f0f0-0000-1111-2222-000000000000',
  ])('can have the id %s', async id => {
    const ada = await api.user()
    expect(await create(ada.token, { id })).toMatchObject({ status: 201, body: { id } })
    expect((await api.get(`/tasks/${id}`, { token: ada.token })).body.id).toBe(id)
  })

  test('cannot have an Idempotency-Key as well', async () => {
    const ada = await api.user()
    const answer = await create(ada.token, { id: newId() }, { 'idempotency-key': 'k' })
    expectError(answer, 422, 'validation_failed', [
      { loc: ['body', 'id'], msg: 'Use either id or Idempotency-Key', type: 'not_combinable' },
    ])
  })

  test('keeps its id when it is changed: the id of a body that changes a task is ignored', async () => {
    const ada = await api.user()
    const { body } = await create(ada.token, { id: newId() })
    expect((await change(ada.token, body.id, { id: newId() })).body).toEqual(body)
  })

  test('is created once by twenty requests at once, each with other words', async () => {
    const ada = await api.user()
    const id = newId()
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) => create(ada.token, { id, title: `${i}` })),
    )
    expect(answers.map(answer => answer.status)).toEqual(Array(20).fill(201))
    expect(new Set(answers.map(answer => JSON.stringify(answer.body))).size).toBe(1)
    expect(await list(ada.token)).toEqual([answers[0]!.body])
  })

  test('is created beside others: twenty requests of a user at once are all answered', async () => {
    const ada = await api.user()
    const ids = Array.from({ length: 20 }, newId)
    const answers = await Promise.all(ids.map(id => create(ada.token, { id })))
    expect(answers.map(({ status, body }) => [status, body.id])).toEqual(ids.map(id => [201, id]))
    expect(await list(ada.token)).toHaveLength(20)
  })
})

onBothDatabases('an Idempotency-Key', api => {
  const create = (token: string, json: object, key = 'k') =>
    api.post('/tasks', { token, json, headers: { 'idempotency-key': key } })

  test('stands for other ids under another secret, and for one of a task and one of a list', async () => {
    const ada = await api.user()
    const ids: string[] = []
    for (const secretKey of ['a secret', 'another']) {
      const lists = createListService({ db: createDb(api.driver), secretKey })
      ids.push((await serviceOn(api, secretKey).create(ada.id, { title: 'x' }, 'k')).id)
      ids.push((await lists.create(ada.id, { name: 'x' }, 'k')).id)
    }

    expect(new Set(ids).size).toBe(4)
  })

  test('that comes again with the same body returns the first task as it is now', async () => {
    const ada = await api.user()
    const { body: first } = await create(ada.token, { title: 'first', due_at: '2030-01-01T01:00:00+01:00' })
    const { body: changed } = await api.patch(`/tasks/${first.id}`, {
      token: ada.token,
      json: { title: 'changed' },
    })

    // Written differently, and with what says no more than the default.
    const repeated = await create(ada.token, {
      tags: [],
      due_at: '2030-01-01T00:00:00Z',
      priority: 0,
      description: null,
      title: 'first',
      unknown: 'field',
    })

    expect(repeated).toMatchObject({ status: 201, body: changed })
  })

  describe('that comes again with another body is refused', () => {
    test.each([
      [{ title: 'second' }],
      [{ title: 'first', priority: 1 }],
      [{ title: 'first', description: 'x' }],
      [{ title: 'first', tags: ['a'] }],
      [{ title: 'First' }],
    ])('%j', async other => {
      const ada = await api.user()
      const { body: first } = await create(ada.token, { title: 'first' })

      expectError(await create(ada.token, other), 422, 'idempotency_key_reused', [
        {
          loc: ['header', 'idempotency-key'],
          msg: 'Sent before, with another body',
          type: 'idempotency_key_reused',
        },
      ])
      expect((await api.get('/tasks', { token: ada.token })).body).toEqual([first])
      expect(await create(ada.token, { title: 'first' })).toMatchObject({ status: 201, body: first })
    })
  })

  test('of two requests at once with different bodies lets one through', async () => {
    const ada = await api.user()
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, i) => create(ada.token, { title: `${i % 2}` })),
    )
    const [one, other] = [0, 1].map(i => answers.filter((_, j) => j % 2 === i).map(({ status }) => status))
    expect([one, other].toSorted()).toEqual([Array(4).fill(201), Array(4).fill(422)])
    expect((await api.get('/tasks', { token: ada.token })).body).toHaveLength(1)
  })

  test('of a task in the trash or gone for good is a 409, whatever the body', async () => {
    const ada = await api.user()
    const { body } = await create(ada.token, { title: 'first' })
    for (const how of ['', '?permanent=true']) {
      await api.delete(`/tasks/${body.id}${how}`, { token: ada.token })
      expectError(await create(ada.token, { title: 'first' }), 409, 'idempotency_key_used')
      expectError(await create(ada.token, { title: 'second' }), 409, 'idempotency_key_used')
    }
    expect((await api.get('/tasks', { token: ada.token })).body).toEqual([])
  })

  test('of a task that an older version of the service created accepts any body', async () => {
    const ada = await api.user()
    const { body } = await create(ada.token, { title: 'first' })
    await api.sql(
      `with next as (update user_versions set last_version = last_version + 1 where user_id = '${ada.id}' returning last_version)
       update tasks set request_hash = null, version = last_version from next where id = '${body.id}'`,
      [],
    )
    expect(await create(ada.token, { title: 'second' })).toMatchObject({
      status: 201,
      body: { title: 'first' },
    })
  })

  test('is printable ASCII', async () => {
    const ada = await api.user()
    const headers = { 'idempotency-key': 'é' }
    const answer = await api.post('/tasks', { token: ada.token, json: { title: 'x' }, headers })
    const msg = 'String should be printable ASCII'
    expectError(answer, 422, 'validation_failed', [
      { loc: ['header', 'idempotency-key'], msg, type: 'string_pattern_mismatch' },
    ])
  })

  test('is no header of a request without one: its id may be named as any id', async () => {
    const ada = await api.user()
    const { body } = await create(ada.token, { title: 'first' })
    const named = await api.post('/tasks', { token: ada.token, json: { id: body.id, title: 'second' } })
    expect(named).toMatchObject({ status: 201, body })
  })
})

test.each([
  ['tasks', 'idempotency', '08da6ef3-e454-86bb-bf72-fc2ed72e0367'],
  ['lists', 'idempotency of lists', '0a4d8daf-e88d-84ff-bcff-d05fbab6b3fd'],
])(
  'an Idempotency-Key of %s stands for one id in every release, and for another one elsewhere',
  (_, purpose, id) => {
    const identify = createIdempotency(testSettings.SECRET_KEY, purpose)
    const userId = '019a9c3d-52e0-7d1b-8c77-3f4a5b6c7d8e'
    expect(identify(userId, { key: 'monday', request: () => '' }).id).toBe(id)
  },
)
