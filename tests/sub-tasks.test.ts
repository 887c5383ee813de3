import { expect, test } from 'bun:test'
import { onBothDatabases, type User } from './support/harness.ts'
import { serviceOn } from './support/task-service.ts'
import { expectError } from './support/wire.ts'

onBothDatabases('a task with children', api => {
  const numberOf = async ({ id }: User) =>
    (await api.sql('select last_version from user_versions where user_id = $1', [id]))[0]![0]
  const titles = async ({ token }: User, path: string) =>
    (await api.get(path, { token })).body.map(({ title }: { title: string }) => title).toSorted()
  const live = (user: User) => titles(user, '/tasks')
  const trashed = (user: User) => titles(user, '/tasks/trash')
  const batch = ({ token }: User, ...operations: object[]) =>
    api.post('/tasks/batch', { token, json: { operations } })

  /** A parent `p` with the children `a` and `b`, and a task `x`. */
  async function family() {
    const ada = await api.user()
    // Its id comes after theirs.
    const p = await api.task(ada, { title: 'p', id: `f${crypto.randomUUID().slice(1)}` })
    const a = await api.task(ada, { title: 'a', parent_id: p.id })
    const b = await api.task(ada, { title: 'b', parent_id: p.id })
    const x = await api.task(ada, { title: 'x' })
    return { ada, p, a, b, x }
  }

  test('is found by its children, and they by it', async () => {
    const { ada, p, a } = await family()

    expect(a).toMatchObject({ parent_id: p.id, list_id: null })
    expect(await titles(ada, `/tasks?parent=${p.id}`)).toEqual(['a', 'b'])
    expect(await titles(ada, '/tasks?parent=none')).toEqual(['p', 'x'])
    const freed = await api.patch(`/tasks/${a.id}`, { token: ada.token, json: { parent_id: null } })
    expect(freed.body).toMatchObject({ parent_id: null, version: 5 })
    expect(await titles(ada, `/tasks?parent=${p.id}`)).toEqual(['b'])
  })

  test('is looked up by ids, also before the table is analyzed: not among all tasks of its user', async () => {
    const ada = await api.user()
    const { id: parent } = await api.task(ada)
    await api.sql(
      `insert into tasks (id, user_id, title, version)
       select gen_random_uuid(), $1, 'x', n from generate_series(2, 10000) n`,
      [ada.id],
    )
    const addChild = async (version: number) => {
      const [row] = await api.sql(
        `explain (analyze, format json) insert into tasks (id, user_id, title, version, parent_id)
         values (gen_random_uuid(), $1, 'x', $2, $3)`,
        [ada.id, version, parent],
      )
      const [{ Triggers }] = row![0] as [{ Triggers: { 'Trigger Name': string; Time: number }[] }]
      return Triggers.find(trigger => trigger['Trigger Name'] === 'tasks_new_parent')!.Time
    }
    const milliseconds: number[] = []
    for (let version = 10_001; version <= 10_010; version++) milliseconds.push(await addChild(version))

    expect(Math.min(...milliseconds)).toBeLessThan(4)
  })

  test('is one level deep', async () => {
    const { ada, p, a, x } = await family()
    const bob = await api.user()
    const foreign = await api.task(bob)
    const set = (id: string, parent_id: string) =>
      api.patch(`/tasks/${id}`, { token: ada.token, json: { parent_id } })
    const create = (parent_id: string) =>
      api.post('/tasks', { token: ada.token, json: { title: 'new', parent_id } })

    for (const refused of [
      await create(a.id),
      await set(x.id, a.id),
      await set(p.id, x.id),
      await set(x.id, x.id),
    ]) {
      expectError(refused, 422, 'parent_nested')
      expect(refused.body.detail).toMatchObject([{ loc: ['body', 'parent_id'], type: 'parent_nested' }])
    }
    await api.delete(`/tasks/${x.id}`, { token: ada.token })
    for (const id of [crypto.randomUUID(), foreign.id, x.id]) {
      expectError(await create(id), 422, 'parent_not_found')
      expectError(await set(a.id, id), 422, 'parent_not_found')
    }
    expectError(await create('x'), 422, 'validation_failed')
    expect(await numberOf(ada)).toBe(5)
  })

  test('goes to the trash with them, comes back with them, and each has a number', async () => {
    const { ada, p, a, b } = await family()
    await api.delete(`/tasks/${b.id}`, { token: ada.token })
    // Though it was changed after its children.
    await api.patch(`/tasks/${p.id}`, { token: ada.token, json: { priority: 1 } })
    const { cursor } = (await api.get('/tasks/changes', { token: ada.token })).body

    await api.delete(`/tasks/${p.id}`, { token: ada.token, headers: { 'if-match': '"6"' } })
    const gone = (await api.get(`/tasks/changes?since=${cursor}`, { token: ada.token })).body
    const [inList, inTrash] = [await live(ada), await trashed(ada)]
    const back = await api.post(`/tasks/${p.id}/restore`, { token: ada.token })
    const returned = (await api.get(`/tasks/changes?since=${gone.cursor}`, { token: ada.token })).body

    expect(gone.deleted).toEqual([p.id, a.id])
    expect([inList, inTrash]).toEqual([['x'], ['a', 'b', 'p']])
    expect(back.body).toMatchObject({ title: 'p', version: 9 })
    expect(returned.tasks).toMatchObject([
      { title: 'p', version: 9 },
      { title: 'a', version: 10, parent_id: p.id },
    ])
    // What was there before stays in the trash.
    expect([await live(ada), await trashed(ada)]).toEqual([['a', 'p', 'x'], ['b']])
    await api.post(`/tasks/${b.id}/restore`, { token: ada.token })
    expect(await titles(ada, `/tasks?parent=${p.id}`)).toEqual(['a', 'b'])
  })

  test('takes them along in the order of their ids', async () => {
    const ada = await api.user()
    const parent = await api.task(ada)
    const ids = Array.from({ length: 8 }, () => crypto.randomUUID())
    for (const id of ids)
      await api.post('/tasks', { token: ada.token, json: { id, title: 'child', parent_id: parent.id } })
    const { cursor } = (await api.get('/tasks/changes', { token: ada.token })).body

    await api.delete(`/tasks/${parent.id}`, { token: ada.token })

    const { deleted } = (await api.get(`/tasks/changes?since=${cursor}`, { token: ada.token })).body
    expect(deleted).toEqual([parent.id, ...ids.sort()])
  })

  test('a child that comes back without its parent is a task of its own', async () => {
    const { ada, p, a, b } = await family()
    await api.delete(`/tasks/${p.id}`, { token: ada.token })

    const alone = await api.post(`/tasks/${a.id}/restore`, { token: ada.token })
    await api.post(`/tasks/${p.id}/restore`, { token: ada.token })

    expect(alone.body).toMatchObject({ title: 'a', parent_id: null })
    expect(await titles(ada, `/tasks?parent=${p.id}`)).toEqual(['b'])
    await api.delete(`/tasks/${b.id}`, { token: ada.token })
    await api.patch(`/tasks/${p.id}`, { token: ada.token, json: { parent_id: a.id } })
    const nested = await api.post(`/tasks/${b.id}/restore`, { token: ada.token })
    expect([nested.status, nested.body.parent_id]).toEqual([200, null])
  })

  test('is deleted for good with them, from the list and from the trash', async () => {
    for (const toTrashFirst of [false, true]) {
      const { ada, p, a, b } = await family()
      if (toTrashFirst) await api.delete(`/tasks/${p.id}`, { token: ada.token })
      else await api.delete(`/tasks/${b.id}`, { token: ada.token })
      const { cursor } = (await api.get('/tasks/changes', { token: ada.token })).body

      const answer = await api.delete(`/tasks/${p.id}?permanent=true`, { token: ada.token })

      const { deleted } = (await api.get(`/tasks/changes?since=${cursor}`, { token: ada.token })).body
      expect(answer.status).toBe(204)
      expect(deleted.toSorted()).toEqual([p.id, a.id, b.id].toSorted())
      expect([await live(ada), await trashed(ada)]).toEqual([['x'], []])
      // Each under a version of its own, by which pages of changes are cut, and none ahead of the user's last one.
      const count = 'select count(distinct version), max(version) from task_tombstones where user_id = $1'
      expect(await api.sql(count, [ada.id])).toEqual([[3, await numberOf(ada)]])
    }
  })

  test('is completed alone', async () => {
    const { ada, p, a } = await family()

    await api.patch(`/tasks/${p.id}`, { token: ada.token, json: { status: 'completed' } })

    expect((await api.get(`/tasks/${a.id}`, { token: ada.token })).body).toEqual(a)
  })

  test('goes with them in a batch, too, which says which operation has no such parent', async () => {
    const { ada, p, a, x } = await family()

    const nested = await batch(
      ada,
      { op: 'update', id: x.id, task: { title: 'y' } },
      { op: 'update', id: x.id.replace(/.$/, ''), task: {} },
    )
    const refused = await batch(
      ada,
      { op: 'create', task: { title: 'fine', parent_id: p.id } },
      { op: 'update', id: x.id, task: { parent_id: a.id } },
    )
    const before = await numberOf(ada)
    const deleted = await batch(
      ada,
      { op: 'delete', id: p.id },
      { op: 'update', id: x.id, task: { title: 'z' } },
    )

    expect(nested.status).toBe(422)
    expect(refused).toMatchObject({ status: 422, body: { code: 'parent_nested' } })
    expect(refused.body).toMatchObject({
      index: 1,
      detail: [{ loc: ['body', 'operations', 1, 'task', 'parent_id'] }],
    })
    expect(deleted.status).toBe(200)
    expect([await live(ada), await trashed(ada)]).toEqual([['z'], ['a', 'b', 'p']])
    expect(await numberOf(ada)).toBe(Number(before) + 4)
  })

  test('has at most 200 of them', async () => {
    const { ada, p, a, x } = await family()
    const many = Array.from({ length: 99 }, () => ({ op: 'create', task: { title: 'c', parent_id: p.id } }))
    for (const operations of [many, many]) expect((await batch(ada, ...operations)).status).toBe(200)

    const json = { title: 'one too many', parent_id: p.id }
    expectError(await api.post('/tasks', { token: ada.token, json }), 422, 'too_many_children')
    const moved = await api.patch(`/tasks/${x.id}`, { token: ada.token, json: { parent_id: p.id } })
    expectError(moved, 422, 'too_many_children')
    expect(moved.body.detail).toMatchObject([{ loc: ['body', 'parent_id'] }])
    await api.delete(`/tasks/${a.id}`, { token: ada.token })
    expect((await api.post('/tasks', { token: ada.token, json })).status).toBe(201)
    const restored = await api.post(`/tasks/${a.id}/restore`, { token: ada.token })
    expectError(restored, 422, 'too_many_children')
    expect(restored.body.detail).toMatchObject([{ loc: ['path', 'id'] }])
  })

  test('loses none of them when the trash is emptied and purged', async () => {
    const { ada, p, a } = await family()
    await api.delete(`/tasks/${a.id}`, { token: ada.token })
    await api.delete('/tasks/trash', { token: ada.token })
    expect(await live(ada)).toEqual(['b', 'p', 'x'])
    await api.delete(`/tasks/${p.id}`, { token: ada.token })
    await api.sql('alter table tasks disable trigger tasks_write', [])
    await api.sql(`update tasks set deleted_at = deleted_at - interval '31 days' where user_id = $1`, [
      ada.id,
    ])
    await api.sql('alter table tasks enable trigger tasks_write', [])

    await serviceOn(api).purge()

    expect([await live(ada), await trashed(ada)]).toEqual([['x'], []])
  })
})
