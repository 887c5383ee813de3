import { expect, test } from 'bun:test'
import { createDb } from '../src/db/drizzle.ts'
import type { UserId } from '../src/lib/user-id.ts'
import { createListService } from '../src/modules/lists/service.ts'
import { onBothDatabases } from './support/harness.ts'
import { serviceOn } from './support/task-service.ts'

onBothDatabases('the changes', api => {
  const changes = async (token: string, cursor?: string, limit?: number) => {
    const query = new URLSearchParams({
      ...(cursor && { since: cursor }),
      ...(limit && { limit: `${limit}` }),
    })
    return api.get(`/tasks/changes?${query}`, { token })
  }

  test('a copy is kept up to date from the changes alone', async () => {
    const ada = await api.user()
    const [one, two, three] = [await api.task(ada), await api.task(ada), await api.task(ada)]

    const { body: start } = await changes(ada.token)
    const { body: changed } = await api.patch(`/tasks/${one.id}`, { token: ada.token, json: { title: 'x' } })
    await api.delete(`/tasks/${two.id}`, { token: ada.token })
    await api.delete(`/tasks/${three.id}?permanent=true`, { token: ada.token })
    const { body: next } = await changes(ada.token, start.cursor)
    const { body: restored } = await api.post(`/tasks/${two.id}/restore`, { token: ada.token })
    const { body: last } = await changes(ada.token, next.cursor)
    const { body: nothing } = await changes(ada.token, last.cursor)

    expect(start).toEqual({
      tasks: [one, two, three],
      deleted: [],
      lists: [],
      deleted_lists: [],
      cursor: expect.any(String),
      has_more: false,
    })
    expect(next).toMatchObject({ tasks: [changed], deleted: [two.id, three.id], has_more: false })
    expect(last).toMatchObject({ tasks: [restored], deleted: [] })
    expect(nothing).toEqual({
      tasks: [],
      deleted: [],
      lists: [],
      deleted_lists: [],
      cursor: last.cursor,
      has_more: false,
    })
  })

  test('a user without tasks gets a cursor too', async () => {
    const ada = await api.user()

    const { body: start } = await changes(ada.token)
    const task = await api.task(ada)
    const { body: next } = await changes(ada.token, start.cursor)

    expect(start).toMatchObject({ tasks: [], deleted: [], has_more: false })
    expect(next.tasks).toEqual([task])
  })

  test('a user whose account was deleted meanwhile has none', async () => {
    const tasks = serviceOn(api)
    const gone = crypto.randomUUID() as UserId
    for (const call of [
      () => tasks.changes(gone, {}),
      () => tasks.changesState(gone, {}),
      () => tasks.changesStart(gone, undefined),
    ])
      await expect<Promise<unknown>>(call()).rejects.toMatchObject({ code: 'invalid_token' })
    const lists = createListService({ db: createDb(api.driver), secretKey: 'a secret for cursors' })
    for (const version of [
      tasks.listVersion(gone, {}),
      lists.listVersion(gone, {}),
      tasks.list(gone, {}).then(page => page.version),
      lists.list(gone, {}).then(page => page.version),
    ])
      expect(await version).toBeUndefined()
  })

  test('a user whose rows are moving to another server comes again', async () => {
    const { id, token } = await api.user()
    // What a distributed PostgreSQL shows meanwhile.
    await api.sql('delete from user_versions where user_id = $1', [id])

    for (const { status, body } of [
      await changes(token),
      await api.post('/tasks', { token, json: { title: 'x' } }),
      await api.post('/lists', { token, json: { name: 'x' } }),
    ])
      expect([status, body.code]).toEqual([503, 'unavailable'])
  })

  test('small pages give everything once, in order', async () => {
    const ada = await api.user()
    const tasks = []
    for (let i = 0; i < 5; i++) tasks.push(await api.task(ada, { title: `${i}` }))
    await api.delete(`/tasks/${tasks[1].id}`, { token: ada.token })
    await api.delete(`/tasks/${tasks[3].id}?permanent=true`, { token: ada.token })

    const seen: string[] = []
    let cursor: string | undefined
    for (let more = true, pages = 0; more && pages < 10; pages++) {
      const { body } = await changes(ada.token, cursor, 2)
      expect(body.tasks.length + body.deleted.length).toBeLessThanOrEqual(2)
      seen.push(...body.tasks.map((task: { id: string }) => task.id), ...body.deleted)
      cursor = body.cursor
      more = body.has_more
    }

    expect(seen).toEqual([tasks[0].id, tasks[2].id, tasks[4].id, tasks[1].id, tasks[3].id])
  })

  test('a cursor is for its user and its place only', async () => {
    const ada = await api.user()
    const bob = await api.user()
    await api.task(ada)
    await api.task(ada)
    const { cursor } = (await changes(ada.token)).body
    const { headers } = await api.get('/tasks?limit=1', { token: ada.token })
    const listCursor = headers.get('link')!.match(/cursor=([^>&]*)/)![1]!
    const swapped = cursor.slice(0, -1) + (cursor.endsWith('A') ? 'B' : 'A')

    const refused = [
      await changes(bob.token, cursor),
      await changes(ada.token, swapped),
      await changes(ada.token, `${cursor}=`),
      await changes(ada.token, ` ${cursor}`),
      await changes(ada.token, cursor.slice(1)),
      await changes(ada.token, 'x'),
      await changes(ada.token, listCursor),
      await changes(ada.token, 'ü'),
      await api.get('/tasks/changes?since=', { token: ada.token }),
      await api.get('/tasks/changes?since=%00', { token: ada.token }),
    ]

    for (const answer of refused) {
      expect(answer).toMatchObject({ status: 422, body: { detail: [{ loc: ['query', 'since'] }] } })
    }
  })

  test('a cursor from the future (the database is a restored backup) is refused: the client begins again', async () => {
    const ada = await api.user()
    await api.task(ada)
    const { cursor } = (await changes(ada.token)).body
    await api.sql('delete from tasks where user_id = $1', [ada.id])
    await api.sql('update user_versions set last_version = 0 where user_id = $1', [ada.id])

    const answer = await changes(ada.token, cursor)

    expect(answer).toMatchObject({ status: 410, body: { code: 'cursor_expired' } })
  })

  test('a client that begins again after deletions were forgotten gets through, page by page', async () => {
    const ada = await api.user()
    const first = await api.task(ada)
    const second = await api.task(ada)
    const gone = await api.task(ada)
    await api.delete(`/tasks/${gone.id}?permanent=true`, { token: ada.token })
    await api.sql('delete from task_tombstones where user_id = $1', [ada.id])
    await api.sql('update user_versions set forgotten_version = last_version where user_id = $1', [ada.id])

    const { body: one } = await changes(ada.token, undefined, 1)
    const { body: two } = await changes(ada.token, one.cursor, 1)

    expect(one).toMatchObject({ tasks: [first], has_more: true })
    expect(two).toMatchObject({ tasks: [second], has_more: false })
  })
})
