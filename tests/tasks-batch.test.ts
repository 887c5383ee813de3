import { describe, expect, test } from 'bun:test'
import { Value } from '@sinclair/typebox/value'
import type { Driver, Query } from '../src/db/driver.ts'
import type { UserId } from '../src/lib/user-id.ts'
import { batchResult, type Task } from '../src/modules/tasks/model.ts'
import { leastCpuMs } from './support/cpu.ts'
import { onBothDatabases, type User } from './support/harness.ts'
import { serviceOn } from './support/task-service.ts'

onBothDatabases('a batch', api => {
  const send = (token: string, operations: unknown) =>
    api.post('/tasks/batch', { token, json: { operations } })
  const listOf = async (token: string) => (await api.get('/tasks', { token })).body

  test('creates, changes and deletes at once, and answers each in its place', async () => {
    const ada = await api.user()
    const [kept, same, gone] = [await api.task(ada), await api.task(ada), await api.task(ada)]

    const { status, body } = await send(ada.token, [
      { op: 'delete', id: gone.id },
      { op: 'create', task: { title: 'new', tags: ['x'], due_at: '2026-11-24T19:00:00+01:00' } },
      { op: 'update', id: same.id, task: { title: same.title } },
      { op: 'update', id: kept.id.toUpperCase(), version: 1, task: { status: 'completed' } },
    ])

    expect(status).toBe(200)
    expect(body.results).toEqual([
      { op: 'delete', id: gone.id, task: null },
      {
        op: 'create',
        id: expect.any(String),
        task: expect.objectContaining({
          title: 'new',
          tags: ['x'],
          due_at: '2026-11-24T18:00:00.000000Z',
          version: 5,
        }),
      },
      { op: 'update', id: same.id, task: same },
      { op: 'update', id: kept.id, task: expect.objectContaining({ status: 'completed', version: 6 }) },
    ])
    expect(new Set(await listOf(ada.token))).toEqual(
      new Set([body.results[1].task, same, body.results[3].task]),
    )
    expect((await api.get('/tasks/trash', { token: ada.token })).body).toMatchObject([
      { id: gone.id, version: 4 },
    ])
  })

  test('a hundred creates take numbers one after the other', async () => {
    const ada = await api.user()
    const operations = Array.from({ length: 100 }, (_, i) => ({ op: 'create', task: { title: `${i}` } }))

    const { body } = await send(ada.token, operations)

    expect(body.results.map(({ task }: { task: Task }) => [task.title, task.version])).toEqual(
      operations.map(({ task }, i) => [task.title, i + 1]),
    )
  })

  test('if one thing cannot be done nothing is, and the error names it', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const mine = await api.task(ada)
    const theirs = await api.task(bob)
    const trashed = await api.task(ada)
    await api.delete(`/tasks/${trashed.id}`, { token: ada.token })
    const good = [
      { op: 'create', task: { title: 'new' } },
      { op: 'update', id: mine.id, task: { title: 'changed' } },
    ]
    for (const [bad, status, code] of [
      [{ op: 'delete', id: crypto.randomUUID() }, 404, 'task_not_found'],
      [{ op: 'update', id: trashed.id, task: {} }, 404, 'task_not_found'],
      [{ op: 'update', id: theirs.id, task: { title: 'x' } }, 403, 'not_authorized'],
      [{ op: 'delete', id: theirs.id }, 403, 'not_authorized'],
    ] as const) {
      const answer = await send(ada.token, [...good, bad])

      expect(answer).toMatchObject({ status, body: { code, index: 2, detail: expect.any(String) } })
      expect((await send(ada.token, [bad, ...good])).body).toMatchObject({ code, index: 0 })
    }
    const moved = await send(ada.token, [good[0], { ...good[1], version: 9 }])
    expect(moved).toMatchObject({
      status: 412,
      body: { code: 'precondition_failed', index: 1, current: mine },
    })
    expect(await listOf(ada.token)).toEqual([mine])
    expect((await api.task(ada)).version).toBe(4)
  })

  test.each([
    [[], ['operations'], 'too_short'],
    ['x', ['operations'], 'list_type'],
    [undefined, ['operations'], 'missing'],
    [[{ op: 'drop' }], ['operations', 0, 'op'], 'literal_error'],
    [[{ op: 'create' }], ['operations', 0, 'task'], 'missing'],
    [[{ op: 'create', task: {} }], ['operations', 0, 'task', 'title'], 'missing'],
    [[{ op: 'create', task: { title: '' } }], ['operations', 0, 'task', 'title'], 'string_too_short'],
    [[{ op: 'create', id: 'x', task: { title: 'x' } }], ['operations', 0, 'id'], 'uuid'],
    [[{ op: 'create', task: { id: 'x', title: 'x' } }], ['operations', 0, 'task', 'id'], 'uuid'],
    [
      [{ op: 'create', id: crypto.randomUUID(), task: { id: crypto.randomUUID(), title: 'x' } }],
      ['operations', 0, 'id'],
      'not_combinable',
    ],
    [[7], ['operations', 0], 'object_type'],
    [[null], ['operations', 0], 'object_type'],
    [[['create']], ['operations', 0], 'object_type'],
    [[{ op: 'create', version: 1, task: { title: 'x' } }], ['operations', 0, 'version'], 'not_combinable'],
    [[{ op: 'delete' }], ['operations', 0, 'id'], 'missing'],
    [[{ op: 'delete', id: 'x' }], ['operations', 0, 'id'], 'uuid'],
    [[{ op: 'delete', id: 5 }], ['operations', 0, 'id'], 'string_type'],
    [[{ op: 'update', id: crypto.randomUUID() }], ['operations', 0, 'task'], 'missing'],
    [
      [{ op: 'update', id: crypto.randomUUID(), task: { priority: 9 } }],
      ['operations', 0, 'task', 'priority'],
      'less_than_equal',
    ],
    [
      [{ op: 'delete', id: crypto.randomUUID(), version: 1e300 }],
      ['operations', 0, 'version'],
      'less_than_equal',
    ],
    [
      [{ op: 'delete', id: crypto.randomUUID(), version: -1 }],
      ['operations', 0, 'version'],
      'greater_than_equal',
    ],
    [
      [{ op: 'create', task: { title: '', priority: 9 } }],
      ['operations', 0, 'task', 'priority'],
      'less_than_equal',
    ],
    [
      [{ op: 'update', id: crypto.randomUUID(), version: '1', task: {} }],
      ['operations', 0, 'version'],
      'int_type',
    ],
  ])('%j is refused', async (operations, path, type) => {
    const ada = await api.user()

    const answer = await send(ada.token, operations)

    expect(answer.status).toBe(422)
    expect(answer.body.detail).toContainEqual({ loc: ['body', ...path], msg: expect.any(String), type })
  })

  test.each([true, false])(
    'a task can come a hundred times, however its id is written, each time as the time before has left it (atomic: %p)',
    async atomic => {
      const ada = await api.user()
      const { id } = await api.task(ada)
      const operations = Array.from({ length: 100 }, (_, i) => ({
        op: 'update',
        id: i % 2 ? id : id.toUpperCase(),
        version: i + 1,
        task: { title: `${i}` },
      }))

      const { body } = await api.post('/tasks/batch', { token: ada.token, json: { atomic, operations } })

      expect(body.results.map(({ task }: { task: Task }) => [task.title, task.version])).toEqual(
        operations.map(({ task, version }) => [task.title, version + 1]),
      )
      expect(await listOf(ada.token)).toEqual([body.results[99].task])
    },
  )

  describe('with ids of the client', () => {
    const [a, b] = [crypto.randomUUID(), crypto.randomUUID()]
    const operations = [
      { op: 'create', id: a.toUpperCase(), task: { title: 'a' } },
      { op: 'create', task: { id: b, title: 'b' } },
      { op: 'update', id: a, task: { status: 'completed' } },
      { op: 'create', id: a, task: { title: 'a once more' } },
      { op: 'delete', id: b },
    ]

    test('names in later operations what earlier ones create', async () => {
      const ada = await api.user()

      const { status, body } = await send(ada.token, operations)

      expect([status, body]).toMatchObject([
        200,
        {
          results: [
            { op: 'create', id: a, task: { title: 'a', status: 'pending' } },
            { op: 'create', id: b, task: { title: 'b' } },
            { op: 'update', id: a, task: { title: 'a', status: 'completed' } },
            { op: 'create', id: a, task: { title: 'a', status: 'completed' } },
            { op: 'delete', id: b, task: null },
          ],
        },
      ])
      expect(await listOf(ada.token)).toEqual([body.results[2].task])
      expect((await api.get('/tasks/trash', { token: ada.token })).body).toMatchObject([{ id: b }])
    })

    test('can be repeated: nothing is created or changed twice', async () => {
      const ada = await api.user()
      const creates = operations.slice(0, 3)
      await send(ada.token, creates)
      const before = await listOf(ada.token)

      const again = await send(ada.token, creates)

      expect(again.status).toBe(200)
      expect(await listOf(ada.token)).toEqual(before)
      expect((await api.task(ada)).version).toBe(4)
    })

    test('is refused when one is in the trash or gone for good, and creates nothing', async () => {
      const ada = await api.user()
      await send(ada.token, operations)
      for (const how of ['', '?permanent=true']) {
        await api.delete(`/tasks/${b}${how}`, { token: ada.token })
        const answer = await send(ada.token, [
          { op: 'create', task: { title: 'new' } },
          { op: 'create', id: b, task: { title: 'b' } },
        ])
        expect(answer).toMatchObject({ status: 409, body: { code: 'id_used', index: 1 } })
      }
      expect(await listOf(ada.token)).toHaveLength(1)
    })

    test('is no conflict with another user', async () => {
      const [ada, bob] = [await api.user(), await api.user()]
      const of = (name: string) => [{ op: 'create', id: a, task: { title: name } }]

      await send(ada.token, of('Ada'))
      await send(bob.token, of('Bob'))
      await send(bob.token, [{ op: 'delete', id: a }])

      expect(await send(bob.token, of('Bob'))).toMatchObject({ status: 409 })
      expect(await send(bob.token, [{ op: 'update', id: a, task: {} }])).toMatchObject({ status: 404 })
      expect(await listOf(ada.token)).toMatchObject([{ id: a, user_id: ada.id, title: 'Ada' }])
    })
  })

  describe('with parents and lists', () => {
    const [parent, child, list] = [crypto.randomUUID(), crypto.randomUUID(), crypto.randomUUID()]
    const sendTo = async (token: string, atomic: boolean, operations: unknown[]) =>
      (await api.post('/tasks/batch', { token, json: { atomic, operations } })).body
    const create = (id: string, task: object = {}) => ({ op: 'create', id, task: { title: 'x', ...task } })

    test('says what it has done, also when a table is missing for what follows', async () => {
      const ada = await api.user()
      const { id } = await api.task(ada)
      await api.sql('alter table task_tombstones rename to tombstones_away', [])
      const { results } = await sendTo(ada.token, false, [
        { op: 'create', task: { title: 'one' } },
        { op: 'update', id, task: { title: 'two' } },
        // It may have been used: the tombstones are looked at.
        { op: 'create', id: crypto.randomUUID(), task: { title: 'three' } },
      ]).finally(() => api.sql('alter table tombstones_away rename to task_tombstones', []))

      expect(results.map(({ status }: { status: number }) => status)).toEqual([201, 200, 503])
      expect((await api.get('/tasks', ada)).body).toHaveLength(2)
    })

    test.each([true, false])('names parents that it creates itself (atomic: %p)', async atomic => {
      const ada = await api.user()
      const { results } = await sendTo(ada.token, atomic, [
        create(parent),
        create(child, { parent_id: parent.toUpperCase() }),
        { op: 'update', id: parent, task: { title: 'named after its child' } },
      ])
      expect(results).toMatchObject([{ id: parent }, { task: { parent_id: parent } }, { id: parent }])
      expect(await listOf(ada.token)).toHaveLength(2)
    })

    test('a deleted parent takes its children along before what comes after it, and after what comes before', async () => {
      const ada = await api.user()
      await sendTo(ada.token, true, [create(parent), create(child, { parent_id: parent })])
      const change = { op: 'update', id: child, task: { title: 'changed' } }

      const { results } = await sendTo(ada.token, false, [
        change,
        { op: 'delete', id: parent },
        change,
        create(crypto.randomUUID(), { parent_id: parent }),
      ])

      expect(results).toMatchObject([
        { status: 200, task: { title: 'changed' } },
        { status: 204 },
        { status: 404 },
        {
          status: 422,
          error: {
            code: 'parent_not_found',
            detail: [{ loc: ['body', 'operations', 3, 'task', 'parent_id'] }],
          },
        },
      ])
      expect(await listOf(ada.token)).toEqual([])
    })

    test('a child that went with its parent cannot be changed, and can be deleted once more', async () => {
      const ada = await api.user()
      await sendTo(ada.token, true, [create(parent), create(child, { parent_id: parent })])

      const { results } = await sendTo(ada.token, false, [
        { op: 'delete', id: parent },
        { op: 'update', id: child, task: { title: 'changed' } },
        { op: 'delete', id: child },
        { op: 'delete', id: child },
        { op: 'delete', id: parent },
      ])

      expect(results.map(({ status }: { status: number }) => status)).toEqual([204, 404, 204, 404, 404])
    })

    test('a child that went with its parent is deleted once more only in the version that it had', async () => {
      const ada = await api.user()
      const made = await sendTo(ada.token, true, [create(parent), create(child, { parent_id: parent })])
      const current = made.results[1].task
      const operations = (version: number) => [
        { op: 'delete', id: parent },
        { op: 'delete', id: child, version },
      ]

      const refused = await sendTo(ada.token, true, operations(1))
      expect(refused).toMatchObject({ code: 'precondition_failed', index: 1, current })
      const { results } = await sendTo(ada.token, true, operations(2))
      expect(results).toMatchObject([{ id: parent }, { id: child }])
    })

    test('each on its own, a child that went with its parent is not shown as if it were still there', async () => {
      const ada = await api.user()
      await sendTo(ada.token, true, [create(parent), create(child, { parent_id: parent })])

      const { results } = await sendTo(ada.token, false, [
        { op: 'delete', id: parent },
        { op: 'delete', id: child, version: 1 },
      ])

      expect(results).toMatchObject([{ status: 204 }, { status: 412, error: { index: 1 } }])
      expect(results[1].error).not.toContainKey('current')
    })

    test('a task that got a parent after its child went comes back without the child’s being nested', async () => {
      const ada = await api.user()
      const other = crypto.randomUUID()
      await sendTo(ada.token, true, [create(other), create(parent), create(child, { parent_id: parent })])
      await sendTo(ada.token, true, [
        { op: 'delete', id: child },
        { op: 'update', id: parent, task: { parent_id: other } },
        { op: 'delete', id: parent },
      ])

      const restored = await api.post(`/tasks/${parent}/restore`, { token: ada.token })

      expect(restored).toMatchObject({ status: 200, body: { parent_id: other } })
      expect(await listOf(ada.token)).toContainEqual(expect.objectContaining({ id: child, parent_id: null }))
    })

    test('each operation on its own: a list or a parent that cannot be stops no other', async () => {
      const [ada, bob] = [await api.user(), await api.user()]
      await api.post('/lists', { token: bob.token, json: { id: list, name: 'of Bob' } })
      const operations = [
        create(parent),
        ...Array.from({ length: 30 }, () => create(crypto.randomUUID(), { list_id: list })),
        create(child, { parent_id: parent }),
        create(crypto.randomUUID(), { parent_id: child }),
        create(crypto.randomUUID(), { parent_id: crypto.randomUUID() }),
        create(crypto.randomUUID()),
      ]

      const { results } = await sendTo(ada.token, false, operations)

      expect(
        results.map(
          (result: { status: number; error?: { code: string } }) => result.error?.code ?? result.status,
        ),
      ).toEqual([201, ...Array(30).fill('list_not_found'), 201, 'parent_nested', 'parent_not_found', 201])
      expect(await listOf(ada.token)).toHaveLength(3)
      expect(await sendTo(ada.token, true, operations)).toMatchObject({ code: 'list_not_found', index: 1 })
    })
  })

  describe.each([true, false])('of creates that follow one another (atomic: %p)', atomic => {
    const sendAs = async (token: string, operations: unknown[]) =>
      (await api.post('/tasks/batch', { token, json: { atomic, operations } })).body
    const create = (task: object = {}) => ({ op: 'create', task: { title: 'x', ...task } })
    /** What became of each: a status, or the code of its error; all or nothing, the code and the index of the first. */
    const outcomes = ({ results, code, index }: any) =>
      results?.map(({ status = 201, error }: any) => error?.code ?? status) ?? [code, index]

    const statementsOf = async (user: User, operations: unknown[]) => {
      let sent = 0
      const counting =
        (query: Query): Query =>
        (...statement) => {
          sent++
          return query(...statement)
        }
      const driver: Driver = {
        ...api.driver,
        query: counting(api.driver.query),
        transaction: work => api.driver.transaction(query => work(counting(query))),
      }
      const batch = serviceOn({ ...api, driver }).batch(user.id, operations, { isAtomic: atomic })
      const failed = await batch
        .then(outcomes => outcomes.findIndex(outcome => 'failure' in outcome))
        .catch(({ index }) => index)
      return { sent, failed }
    }

    test('sends as many statements for a hundred as for two, and to repeat them', async () => {
      const ada = await api.user()
      const parent = crypto.randomUUID()
      const creates = (count: number) => [
        create({ id: parent }),
        ...Array.from({ length: count - 1 }, () =>
          create({ id: crypto.randomUUID(), parent_id: parent.toUpperCase() }),
        ),
      ]
      const [two, hundred] = [creates(2), creates(100)]

      const few = await statementsOf(ada, two)
      await api.delete(`/tasks/${parent}`, { token: ada.token })
      const bob = await api.user()
      const [many, again] = [await statementsOf(bob, hundred), await statementsOf(bob, hundred)]

      expect(few.sent).toBeLessThan(6)
      expect([many, few.failed]).toEqual([few, -1])
      expect(again).toEqual({ sent: expect.any(Number), failed: -1 })
      expect(again.sent).toBeLessThan(few.sent)
    })

    test('carries out nothing twice because one is refused', async () => {
      const ada = await api.user()
      const updates = await Promise.all(
        Array.from({ length: 20 }, async () => ({
          op: 'update',
          id: (await api.task(ada)).id,
          task: { title: 'y' },
        })),
      )
      const list_id = crypto.randomUUID()

      const { sent, failed } = await statementsOf(ada, [...updates, create(), create({ list_id })])

      expect(failed).toBe(21)
      expect(sent).toBeLessThan(30)
    })

    test('sets what each one says, and the default of what it does not say', async () => {
      const ada = await api.user()
      const list = (await api.post('/lists', { token: ada.token, json: { name: 'a list' } })).body.id
      const said = [
        {},
        { title: ' "ü" \\ {🦆} ', tags: ['a,b', '"', '{}', '\\'], priority: 4, description: '\n' },
        { status: 'completed', position: 'b', list_id: list },
        { status: 'pending', due_at: '2026-11-24T19:00:00+01:00', description: null, tags: [] },
        { id: crypto.randomUUID(), status: 'in_progress' },
      ]
      const single = await Promise.all(
        said.map(
          async ({ id: _, ...task }) =>
            (await api.post('/tasks', { token: ada.token, json: { title: 'x', ...task } })).body,
        ),
      )

      const { results } = await sendAs(ada.token, said.map(create))

      const comparable = ({ completed_at, ...task }: Task) => ({
        ...task,
        is_completed: completed_at !== null,
        id: '',
        version: 0,
        created_at: '',
        updated_at: '',
      })
      expect(results.map(({ task }: { task: Task }) => comparable(task))).toEqual(single.map(comparable))
      for (const { task } of results)
        expect((await api.get(`/tasks/${task.id}`, { token: ada.token })).body).toEqual(task)
      expect((await api.get(`/tasks?q=${encodeURIComponent('ü')}`, { token: ada.token })).body).toHaveLength(
        2,
      )
      expect(results[2].task.completed_at).toBe(results[2].task.created_at)
      expect(results[4].id).toBe(said[4]!.id)
    })

    test('lists them in their order, whatever their ids are', async () => {
      const ada = await api.user()
      const titles = Array.from({ length: 12 }, (_, i) => `${i}`)

      await sendAs(
        ada.token,
        titles.map(title => create({ id: crypto.randomUUID(), title })),
      )

      // The newest first.
      expect((await listOf(ada.token)).map(({ title }: Task) => title)).toEqual(titles.toReversed())
      const changed = (await api.get('/tasks?sort=updated_at', { token: ada.token })).body
      expect(changed.map(({ title }: Task) => title)).toEqual(titles)
    })

    test('makes the words of many long texts in several turns of the event loop', async () => {
      const ada = await api.user()
      const korean = (length: number) =>
        Array.from({ length }, (_, i) => String.fromCharCode(0xac00 + ((i * 7919) % 11_000))).join('')
      const task = { title: korean(200), description: korean(1800) }
      let [turns, turnsAtAnswer, turnsBetween, isOver] = [0, Number.POSITIVE_INFINITY, 0, false]
      const count = () => {
        turns++
        if (!isOver) setImmediate(count)
      }
      const counting =
        (query: Query): Query =>
        async (...statement) => {
          turnsBetween = Math.max(turnsBetween, turns - turnsAtAnswer)
          const rows = await query(...statement)
          turnsAtAnswer = turns
          return rows
        }
      const transaction: Driver['transaction'] = work =>
        api.driver.transaction(query => work(counting(query)))

      count()
      const tasks = serviceOn({ ...api, driver: { ...api.driver, transaction } })
      await tasks.batch(ada.id, Array(100).fill(create(task)), { isAtomic: atomic })
      isOver = true

      // Twenty milliseconds of work, or more.
      expect(turnsBetween).toBeGreaterThan(0)
    })

    test('names the one that is refused', async () => {
      const ada = await api.user()
      const list_id = crypto.randomUUID()
      const operations = [create(), create({ list_id }), create(), create({ parent_id: list_id }), create()]

      expect(outcomes(await sendAs(ada.token, operations))).toEqual(
        atomic ? ['list_not_found', 1] : [201, 'list_not_found', 201, 'parent_not_found', 201],
      )
      expect(await listOf(ada.token)).toHaveLength(atomic ? 0 : 3)
    })

    test('refuses a child before its parent, though the parent comes next', async () => {
      const ada = await api.user()
      const id = crypto.randomUUID()
      const operations = [create(), create({ parent_id: id }), create({ id: id.toUpperCase() })]

      expect(outcomes(await sendAs(ada.token, operations))).toEqual(
        atomic ? ['parent_not_found', 1] : [201, 'parent_not_found', 201],
      )
    })

    test('refuses the child that is one too many', async () => {
      const ada = await api.user()
      const { id } = await api.task(ada)
      const child = create({ parent_id: id })
      for (let i = 0; i < 2; i++)
        expect((await sendAs(ada.token, Array(99).fill(child))).results).toHaveLength(99)

      expect(outcomes(await sendAs(ada.token, Array(4).fill(child)))).toEqual(
        atomic ? ['too_many_children', 2] : [201, 201, 'too_many_children', 'too_many_children'],
      )
      expect(await listOf(ada.token)).toHaveLength(50)
    })

    test('returns the first task for an id that comes twice, and creates what is new beside it', async () => {
      const ada = await api.user()
      const [once, twice] = [crypto.randomUUID(), crypto.randomUUID()]
      await sendAs(ada.token, [create({ id: once, title: 'before' })])

      const { results } = await sendAs(ada.token, [
        create({ id: twice, title: 'first' }),
        create({ title: 'new' }),
        create({ id: twice.toUpperCase(), title: 'second' }),
        create({ id: once, title: 'again' }),
        create({ title: 'new, too' }),
      ])

      expect(results.map(({ task }: { task: Task }) => task.title)).toEqual([
        'first',
        'new',
        'first',
        'before',
        'new, too',
      ])
      expect(await listOf(ada.token)).toHaveLength(4)
    })

    test('returns the first task for an id that comes twice, also when nothing had it before', async () => {
      const ada = await api.user()
      const id = crypto.randomUUID()

      const { results } = await sendAs(ada.token, [
        create({ id, title: 'first' }),
        create({ title: 'new' }),
        create({ id: id.toUpperCase(), title: 'second' }),
      ])

      expect(results.map(({ task }: { task: Task }) => task.title)).toEqual(['first', 'new', 'first'])
      expect(await listOf(ada.token)).toHaveLength(2)
    })

    test('refuses the child of a child, though the batch creates both', async () => {
      const ada = await api.user()
      const [parent, child] = [crypto.randomUUID(), crypto.randomUUID()]
      const operations = [
        create({ id: parent }),
        create({ id: child, parent_id: parent }),
        create({ parent_id: child }),
        create(),
      ]

      expect(outcomes(await sendAs(ada.token, operations))).toEqual(
        atomic ? ['parent_nested', 2] : [201, 201, 'parent_nested', 201],
      )
      expect(await listOf(ada.token)).toHaveLength(atomic ? 0 : 3)
    })

    test('creates each once, though they are sent several times at once', async () => {
      const ada = await api.user()
      const operations = Array.from({ length: 20 }, () => create({ id: crypto.randomUUID() }))

      const answers = await Promise.all(Array.from({ length: 5 }, () => sendAs(ada.token, operations)))

      for (const answer of answers) expect(answer).toEqual(answers[0])
      expect(await listOf(ada.token)).toHaveLength(20)
    })
  })

  test('names everything that is wrong at once', async () => {
    const ada = await api.user()

    const { status, body } = await send(ada.token, [
      { op: 'create', task: { title: '', priority: 9 } },
      { op: 'create', task: { title: 'x' } },
      { op: 'delete', id: 'x' },
    ])

    expect(status).toBe(422)
    expect(body.detail.map(({ loc }: { loc: unknown[] }) => loc.slice(2))).toEqual([
      [0, 'task', 'title'],
      [0, 'task', 'priority'],
      [2, 'id'],
    ])
  })

  test('names the first operation that cannot be done, though a later one is looked at before', async () => {
    const ada = await api.user()
    const id = crypto.randomUUID()
    const { body: current } = await api.post('/tasks', { token: ada.token, json: { id, title: 'x' } })

    const answer = await send(ada.token, [
      { op: 'update', id, task: { title: 'y' } },
      { op: 'update', id, version: current.version, task: { title: 'z' } },
      { op: 'delete', id: crypto.randomUUID() },
    ])

    expect(answer).toMatchObject({
      status: 412,
      body: { index: 1, current },
    })
    expect(await listOf(ada.token)).toEqual([current])
  })

  test('shows no task in a 412 that it made itself, and one that it deleted as it is', async () => {
    const ada = await api.user()
    const [parent, child, made] = [crypto.randomUUID(), crypto.randomUUID(), crypto.randomUUID()]
    await send(ada.token, [
      { op: 'create', id: parent, task: { title: 'parent' } },
      { op: 'create', id: child, task: { title: 'child', parent_id: parent } },
    ])

    const unmade = await send(ada.token, [
      { op: 'create', id: made, task: { title: 'new' } },
      { op: 'update', id: made.toUpperCase(), version: 1, task: { title: 'newer' } },
    ])
    const kept = await send(ada.token, [
      { op: 'delete', id: parent },
      { op: 'delete', id: child.toUpperCase(), version: 1 },
    ])

    expect([unmade.status, unmade.body.code, unmade.body.index]).toEqual([412, 'precondition_failed', 1])
    expect(unmade.body).not.toContainKey('current')
    expect((await api.get(`/tasks/${made}`, { token: ada.token })).status).toBe(404)
    const { body: current } = await api.get(`/tasks/${child}`, { token: ada.token })
    expect(current).toMatchObject({ title: 'child', version: 2 })
    expect(kept).toMatchObject({ status: 412, body: { index: 1, current } })
  })

  test('names in a 412 a version that no other change gets', async () => {
    const ada = await api.user()
    const task = await api.task(ada)
    const at = `/tasks/${task.id}`

    const { body: refused } = await send(ada.token, [
      { op: 'update', id: task.id, version: 1, task: { title: 'mine' } },
      { op: 'update', id: task.id, version: 1, task: { status: 'completed' } },
    ])
    const { body: theirs } = await api.patch(at, { token: ada.token, json: { title: 'theirs' } })

    const headers = { 'if-match': `"${refused.current.version}"` }
    const late = await api.patch(at, { token: ada.token, headers, json: { title: 'mine' } })
    expect(late).toMatchObject({ status: 412, body: { current: theirs } })
  })

  describe('each operation on its own (`atomic: false`)', () => {
    const sendLoosely = (token: string, operations: unknown, headers = {}) =>
      api.post('/tasks/batch', { token, json: { atomic: false, operations }, headers })

    test('does what can be done, and answers each in its place', async () => {
      const [ada, bob] = [await api.user(), await api.user()]
      const [kept, gone, theirs] = [await api.task(ada), await api.task(ada), await api.task(bob)]
      const own = crypto.randomUUID()

      const { status, headers, body } = await sendLoosely(ada.token, [
        { op: 'create', id: own.toUpperCase(), task: { id: own, title: 'new' } },
        { op: 'update', id: kept.id, version: 9, task: { title: 'stale' } },
        { op: 'delete', id: theirs.id },
        { op: 'delete', id: crypto.randomUUID() },
        { op: 'create', task: { title: '' } },
        { op: 'delete', id: gone.id },
        { op: 'update', id: gone.id, task: { title: 'late' } },
        { op: 'create', id: gone.id, task: { title: 'again' } },
        { op: 'update', id: own, task: { priority: 4 } },
        { op: 'drop', id: 7 },
        'nonsense',
        null,
        { op: 'delete', id: kept.id, version: 0 },
        { op: 'delete', id: 'nonsense' },
      ])

      const error = (code: string, index: number, more: object = {}) => ({
        code,
        index,
        request_id: headers.get('x-request-id')!,
        detail: expect.anything(),
        ...more,
      })
      expect(status).toBe(200)
      expect(body.results).toEqual([
        { op: 'create', id: own, status: 201, task: expect.objectContaining({ title: 'new' }) },
        {
          op: 'update',
          id: kept.id,
          status: 412,
          error: error('precondition_failed', 1, { current: kept }),
        },
        { op: 'delete', id: theirs.id, status: 403, error: error('not_authorized', 2) },
        { op: 'delete', id: expect.any(String), status: 404, error: error('task_not_found', 3) },
        {
          op: 'create',
          status: 422,
          error: error('validation_failed', 4, {
            detail: [
              {
                loc: ['body', 'operations', 4, 'task', 'title'],
                msg: expect.any(String),
                type: 'string_too_short',
              },
            ],
          }),
        },
        { op: 'delete', id: gone.id, status: 204, task: null },
        { op: 'update', id: gone.id, status: 404, error: error('task_not_found', 6) },
        { op: 'create', id: gone.id, status: 409, error: error('id_used', 7) },
        { op: 'update', id: own, status: 200, task: expect.objectContaining({ id: own, priority: 4 }) },
        { status: 422, error: error('validation_failed', 9) },
        { status: 422, error: error('validation_failed', 10) },
        { status: 422, error: error('validation_failed', 11) },
        {
          op: 'delete',
          id: kept.id,
          status: 412,
          error: error('precondition_failed', 12, { current: kept }),
        },
        { op: 'delete', id: 'nonsense', status: 422, error: error('validation_failed', 13) },
      ])
      expect([...Value.Errors(batchResult, body)]).toEqual([])
      expect(await listOf(ada.token)).toEqual([body.results[8].task, kept])
    })

    test('is a 200 even when none can be done', async () => {
      const ada = await api.user()

      const { status, body } = await sendLoosely(ada.token, [{ op: 'delete', id: crypto.randomUUID() }])

      expect([status, body.results]).toMatchObject([200, [{ status: 404 }]])
    })

    test('is refused as a whole when the account was deleted meanwhile', async () => {
      const gone = crypto.randomUUID() as UserId
      const operations = [
        { op: 'create', task: { title: 'x' } },
        { op: 'delete', id: gone },
      ]
      const batch = serviceOn(api).batch(gone, operations, { isAtomic: false })

      await expect(batch).rejects.toMatchObject({ code: 'invalid_token' })
    })

    test('can be repeated with ids of the client', async () => {
      const ada = await api.user()
      const operations = Array.from({ length: 50 }, (_, i) => ({
        op: 'create',
        id: crypto.randomUUID(),
        task: { title: `${i}` },
      }))
      const [first, again] = [
        await sendLoosely(ada.token, operations),
        await sendLoosely(ada.token, operations),
      ]
      expect(again.body).toEqual(first.body)
      expect(await listOf(ada.token)).toHaveLength(50)
    })

    test('refuses an unknown field in its place if the client prefers strict handling', async () => {
      const ada = await api.user()
      const { headers, body } = await sendLoosely(
        ada.token,
        [
          { op: 'create', task: { title: 'x', titel: 'y' } },
          { op: 'create', task: { title: 'good' } },
        ],
        { prefer: 'handling=strict' },
      )
      expect(headers.get('preference-applied')).toBe('handling=strict')
      expect(body.results).toMatchObject([
        { status: 422, error: { detail: [{ loc: ['body', 'operations', 0, 'task', 'titel'] }] } },
        { status: 201 },
      ])
    })

    test.each([
      ['wrong values', { tags: Array(150).fill(1) }],
      ['unknown fields', Object.fromEntries(Array.from({ length: 150 }, (_, i) => [`unknown_${i}`, 1]))],
    ])(
      'of a hundred operations with many %s one error has as many as it can name, the others one or two',
      async (_, wrong) => {
        const ada = await api.user()
        const operations = Array(100).fill({ op: 'create', task: { title: 'x', ...wrong } })
        const { body } = await sendLoosely(ada.token, operations, { prefer: 'handling=strict' })
        const counts = body.results.map(({ error }: any) => error.detail.length)
        expect(counts[0]).toBe(100)
        for (const count of counts.slice(1)) expect(count).toBeWithin(1, 3)
      },
    )

    test.each(['yes', 0, null])('is chosen by true or false, not by %j', async atomic => {
      const ada = await api.user()
      const answer = await api.post('/tasks/batch', {
        token: ada.token,
        json: { atomic, operations: [{ op: 'create', task: { title: 'x' } }] },
      })
      expect(answer).toMatchObject({ status: 422, body: { detail: [{ loc: ['body', 'atomic'] }] } })
    })
  })

  test('a hundred long tasks fit, more than a hundred or a megabyte do not, and the answer comes at once', async () => {
    const ada = await api.user()
    const long = { op: 'create', task: { title: '🦆'.repeat(200), description: 'ü'.repeat(2000) } }

    expect((await send(ada.token, Array(100).fill(long))).status).toBe(200)
    const tagged = { op: 'create', task: { title: 'x', tags: ['a', '[{'] } }
    expect((await send(ada.token, Array(100).fill(tagged))).status).toBe(200)
    expect(
      (await send(ada.token, Array(101).fill({ op: 'create', task: { title: 'x' } }))).body.detail[0].type,
    ).toBe('too_long')
    const refuse = async (count: number) => {
      const { status, body } = await send(ada.token, Array(count).fill(0))
      expect(status).toBe(422)
      expect(body.detail.length).toBeLessThanOrEqual(100)
    }
    const least = await leastCpuMs({ few: () => refuse(1500), many: () => refuse(15_000) }, 5)
    expect(least.many).toBeLessThan(30 * least.few!)
    // Values of a whole body: its object and its list count.
    expect((await send(ada.token, Array(19_998).fill(0))).status).toBe(422)
    expect((await send(ada.token, Array(19_999).fill(0))).status).toBe(413)
    expect((await send(ada.token, 'x'.repeat(1024 * 1024))).status).toBe(413)
    const sized = (bytes: number) =>
      api.post('/tasks/batch', {
        token: ada.token,
        raw: JSON.stringify({ operations: [{ op: 'create', task: { title: 'x' } }] }).padEnd(bytes),
        headers: { 'content-type': 'application/json' },
      })
    expect([(await sized(1024 * 1024)).status, (await sized(1024 * 1024 + 1)).status]).toEqual([200, 413])
  })

  test('of one transaction sends only statements that the server keeps, because it may repeat them', async () => {
    const ada = await api.user()
    const { id } = await api.task(ada)
    const others: string[] = []
    const transaction: Driver['transaction'] = work =>
      api.driver.transaction(query =>
        work((text, values, options) => {
          if (!options?.prepare) others.push(text)
          return query(text, values, options)
        }),
      )
    const tasks = serviceOn({ ...api, driver: { ...api.driver, transaction } })

    const outcomes = await tasks.batch(ada.id, [
      { op: 'create', task: { title: 'new' } },
      { op: 'update', id, task: { title: 'changed' } },
      { op: 'delete', id },
    ])

    expect([outcomes.length, others]).toEqual([3, []])
  })

  test('batches that meet in the middle do not stop each other', async () => {
    const ada = await api.user()
    const ids: string[] = []
    for (let i = 0; i < 6; i++) ids.push((await api.task(ada)).id)
    const change = (order: string[], title: string) =>
      send(
        ada.token,
        order.map(id => ({ op: 'update', id, task: { title } })),
      )

    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, i) => change(i % 2 ? ids : ids.toReversed(), `${i}`)),
    )

    expect(answers.map(answer => answer.status)).toEqual(Array(10).fill(200))
    expect(new Set((await listOf(ada.token)).map((task: { title: string }) => task.title)).size).toBe(1)
  })
})
