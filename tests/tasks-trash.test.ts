import { expect, test } from 'bun:test'
import { createDb } from '../src/db/client.ts'
import { createTaskService, type TaskService } from '../src/modules/tasks/service.ts'
import { byHand } from './support/by-hand.ts'
import { onBothDatabases, type Service } from './support/harness.ts'

/** The service on the same database, for what only the service itself does. */
const serviceOf = (api: Service): TaskService => {
  const driver = { kind: api.kind, query: api.sql } as never
  return createTaskService({ db: createDb(driver), driver, secretKey: 'only for cursors' })
}

onBothDatabases('the trash', api => {
  test('what is deleted is in the trash, last deleted first, and nobody else sees it', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const first = await api.task(ada, { title: 'first' })
    const second = await api.task(ada, { title: 'second' })
    await api.task(ada, { title: 'kept' })
    await api.delete(`/tasks/${second.id}`, { token: ada.token })
    await api.delete(`/tasks/${first.id}`, { token: ada.token })

    const trash = await api.get('/tasks/trash', { token: ada.token })

    expect(trash.body).toEqual([
      { ...first, version: 5, deleted_at: expect.any(String) },
      { ...second, version: 4, deleted_at: expect.any(String) },
    ])
    expect((await api.get('/tasks/trash', { token: bob.token })).body).toEqual([])
  })

  test('its pages hang together, and a cursor from elsewhere is refused', async () => {
    const ada = await api.user()
    const titles = ['a', 'b', 'c', 'd', 'e']
    for (const title of titles) {
      const task = await api.task(ada, { title })
      await api.delete(`/tasks/${task.id}`, { token: ada.token })
    }

    const seen: string[] = []
    let address = '/tasks/trash?limit=2'
    for (let page = 0; page < 3; page++) {
      const answer = await api.get(address, { token: ada.token })
      seen.push(...answer.body.map((task: { title: string }) => task.title))
      const link = answer.headers.get('link')
      if (!link) break
      address = link.match(/^<\/api\/v1(.*)>; rel="next"$/)![1]!
    }

    expect(seen).toEqual(titles.toReversed())
    const cursor = new URLSearchParams(address.split('?')[1]).get('cursor')
    const wrong = await api.get(`/tasks?cursor=${cursor}`, { token: ada.token })
    expect(wrong).toMatchObject({ status: 422, body: { detail: [{ loc: ['query', 'cursor'] }] } })
  })

  test('a restored task is what it was, with a new version, and restoring it again changes nothing', async () => {
    const ada = await api.user()
    const task = await api.task(ada, { tags: ['a'], status: 'completed' })
    const restore = () => api.post(`/tasks/${task.id}/restore`, { token: ada.token })
    await api.delete(`/tasks/${task.id}`, { token: ada.token })

    const restored = await restore()
    const again = await restore()

    expect(restored.body).toEqual({ ...task, version: 3, updated_at: expect.any(String) })
    expect(again).toMatchObject({ status: 200, body: restored.body })
    expect((await api.get('/tasks', { token: ada.token })).body).toEqual([restored.body])
    expect((await api.get('/tasks/trash', { token: ada.token })).body).toEqual([])
  })

  test('restoring heeds If-Match, and whose the task is', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const task = await api.task(ada)
    await api.delete(`/tasks/${task.id}`, { token: ada.token })
    const restore = (token: string, tag = '*') =>
      api.post(`/tasks/${task.id}/restore`, { token, headers: { 'if-match': tag } })

    expect((await restore(ada.token, '"1"')).status).toBe(412)
    expect((await restore(bob.token)).status).toBe(403)
    expect((await api.post('/tasks/nonsense/restore', { token: ada.token })).status).toBe(404)
    expect((await restore(ada.token, '"2"')).status).toBe(200)
  })

  test('from the trash a task can be taken for good, and the whole trash can be emptied', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const [one, two, three] = [await api.task(ada), await api.task(ada), await api.task(ada)]
    const theirs = await api.task(bob)
    for (const { id } of [one, two, three]) await api.delete(`/tasks/${id}`, { token: ada.token })
    await api.delete(`/tasks/${theirs.id}`, { token: bob.token })

    const erased = await api.delete(`/tasks/${one.id}?permanent=true`, { token: ada.token })
    const left = await api.get('/tasks/trash', { token: ada.token })
    const emptied = await api.delete('/tasks/trash', { token: ada.token })
    const empty = await api.get('/tasks/trash', { token: ada.token })

    expect([erased.status, emptied.status]).toEqual([204, 204])
    expect(left.body).toHaveLength(2)
    expect(empty.body).toEqual([])
    expect((await api.post(`/tasks/${two.id}/restore`, { token: ada.token })).status).toBe(404)
    expect((await api.get('/tasks/trash', { token: bob.token })).body).toHaveLength(1)
  })

  test('a trash of more than one step is emptied whole', async () => {
    const ada = await api.user()
    await api.sql(
      `insert into tasks (id, user_id, title, version, deleted_at)
       select gen_random_uuid(), $1, 'old', n, now() from generate_series(1, 1200) n`,
      [ada.id],
    )
    await api.sql('update task_counters set seq = 1200 where user_id = $1', [ada.id])

    await api.delete('/tasks/trash', { token: ada.token })

    const left = await api.sql('select count(*) from tasks where user_id = $1', [ada.id])
    const stones = await api.sql('select count(*) from task_tombstones where user_id = $1', [ada.id])
    expect([left, stones]).toEqual([[[0]], [[1200]]])
  })

  test('after thirty days a task goes by itself, and the changes say the same before and after', async () => {
    const ada = await api.user()
    const old = await api.task(ada, { title: 'old' })
    const recent = await api.task(ada, { title: 'recent' })
    for (const { id } of [old, recent]) await api.delete(`/tasks/${id}`, { token: ada.token })
    await byHand(api.sql, `update tasks set deleted_at = now() - interval '30 days 1 minute' where id = $1`, [
      old.id,
    ])
    const { body: before } = await api.get('/tasks/changes', { token: ada.token })

    const done = await Promise.all([serviceOf(api).purge(), serviceOf(api).purge(), serviceOf(api).purge()])

    const { body: trash } = await api.get('/tasks/trash', { token: ada.token })
    const { body: after } = await api.get('/tasks/changes', { token: ada.token })
    expect(done.reduce((sum, { purged }) => sum + purged, 0)).toBe(1)
    expect(trash.map((task: { title: string }) => task.title)).toEqual(['recent'])
    expect(after).toEqual(before)
  })

  test('after ninety days a deletion is forgotten, and a cursor from before it is told so', async () => {
    const ada = await api.user()
    const kept = await api.task(ada)
    const { body: start } = await api.get('/tasks/changes', { token: ada.token })
    const gone = await api.task(ada)
    await api.delete(`/tasks/${gone.id}?permanent=true`, { token: ada.token })
    const { body: end } = await api.get('/tasks/changes', { token: ada.token })
    await api.sql(`update task_tombstones set deleted_at = now() - interval '91 days' where id = $1`, [
      gone.id,
    ])

    const { forgotten } = await serviceOf(api).purge()

    const since = (cursor: string) => api.get(`/tasks/changes?since=${cursor}`, { token: ada.token })
    expect(forgotten).toBe(1)
    expect(await since(start.cursor)).toMatchObject({ status: 410, body: { code: 'cursor_expired' } })
    expect((await since(end.cursor)).body).toMatchObject({ tasks: [], deleted: [] })
    const anew = await api.get('/tasks/changes', { token: ada.token })
    expect(anew.body).toMatchObject({ tasks: [kept], deleted: [] })
  })
})
