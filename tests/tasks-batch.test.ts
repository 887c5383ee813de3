import { expect, test } from 'bun:test'
import type { Task } from '../src/modules/tasks/model.ts'
import { leastCpuMs } from './support/cpu.ts'
import { onBothDatabases } from './support/harness.ts'

onBothDatabases('a batch', api => {
  const send = (token: string, operations: unknown) =>
    api.post('/tasks/batch', { token, json: { operations } })
  const list = async (token: string) => (await api.get('/tasks', { token })).body

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
    expect(new Set(await list(ada.token))).toEqual(
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
    }
    const moved = await send(ada.token, [good[0], { ...good[1], version: 9 }])
    expect(moved).toMatchObject({ status: 412, body: { code: 'precondition_failed', index: 1 } })
    expect(await list(ada.token)).toEqual([mine])
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
    [[{ op: 'create', id: 'x', task: { title: 'x' } }], ['operations', 0, 'id'], 'not_combinable'],
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
  ])('%j is refused', async (operations, path, type) => {
    const ada = await api.user()

    const answer = await send(ada.token, operations)

    expect(answer.status).toBe(422)
    expect(answer.body.detail).toContainEqual({ loc: ['body', ...path], msg: expect.any(String), type })
  })

  test('a task can come once only, however its id is written', async () => {
    const ada = await api.user()
    const { id } = await api.task(ada)

    const answer = await send(ada.token, [
      { op: 'update', id, task: { title: 'x' } },
      { op: 'delete', id: id.toUpperCase() },
    ])

    expect(answer.body.detail).toEqual([
      { loc: ['body', 'operations', 1, 'id'], msg: expect.any(String), type: 'duplicate' },
    ])
  })

  test('a hundred long tasks fit, more than a hundred or a megabyte do not, and the answer comes at once', async () => {
    const ada = await api.user()
    const long = { op: 'create', task: { title: '🦆'.repeat(200), description: 'ü'.repeat(2000) } }

    expect((await send(ada.token, Array(100).fill(long))).status).toBe(200)
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
    expect((await send(ada.token, Array(400_000).fill(0))).status).toBe(413)
    expect((await send(ada.token, 'x'.repeat(1024 * 1024))).status).toBe(413)
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
    expect(new Set((await list(ada.token)).map((task: { title: string }) => task.title)).size).toBe(1)
  })
})
