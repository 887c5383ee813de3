import { expect, test } from 'bun:test'
import type { TaskService } from '../src/modules/tasks/service.ts'
import { makeApiToken } from './support/api-token.ts'
import { type Client, client, onBothDatabases } from './support/harness.ts'
import { listening } from './support/listening.ts'
import { unownedStatements } from './support/owned-statements.ts'
import { expectError } from './support/wire.ts'

onBothDatabases('two users', api => {
  test('see nothing of each other', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const hers = await api.task(ada, { title: 'hers alone' })
    const trashed = await api.task(ada, { title: 'hers in the trash' })
    await api.delete(`/tasks/${trashed.id}`, { token: ada.token })
    const gone = await api.task(ada, { title: 'hers for good' })
    await api.delete(`/tasks/${gone.id}?permanent=true`, { token: ada.token })

    const { body: list } = await api.post('/lists', { token: ada.token, json: { name: 'hers' } })
    await api.task(ada, { list_id: list.id })
    await api.post('/lists', { token: ada.token, json: { name: 'gone' } })
    for (const path of [
      '/lists?total=true&counts=true',
      `/tasks?list=${list.id}`,
      '/tasks',
      '/tasks?q=hers',
      '/tasks?status=pending&limit=200',
      '/tasks/trash',
      '/tasks?total=true',
    ]) {
      const answer = await api.get(path, { token: bob.token })
      expect([path, answer.status, answer.body]).toEqual([path, 200, []])
      expect(answer.headers.get('x-total-count') ?? '0').toBe('0')
    }
    const changes = await api.get('/tasks/changes', { token: bob.token })
    expect(changes.body).toMatchObject({ tasks: [], deleted: [], lists: [], deleted_lists: [] })
    for (const query of ['', `?list=${list.id}`]) {
      const stats = await api.get(`/tasks/stats${query}`, { token: bob.token })
      expect(JSON.stringify(stats.body)).not.toMatch(/[1-9]/)
    }
    const sessions = await api.get('/auth/sessions', { token: bob.token })
    expect(sessions.body).toHaveLength(1)
    expect((await api.get('/users/me', { token: bob.token })).body.id).toBe(bob.id)
    expect((await api.get(`/tasks/${hers.id}`, { token: ada.token })).body).toEqual(hers)
  })

  test('cannot touch each other’s tasks, by any call', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const task = await api.task(ada, { title: 'hers' })
    const trashed = await api.task(ada, { title: 'in the trash' })
    await api.delete(`/tasks/${trashed.id}`, { token: ada.token })
    const { token } = bob

    expectError(await api.get(`/tasks/${task.id}`, { token }), 403, 'not_authorized', 'Not authorized')
    for (const method of ['put', 'patch'] as const) {
      for (const json of [{}, { title: 'his' }, { user_id: bob.id }, { status: 'completed' }]) {
        expectError(await api[method](`/tasks/${task.id}`, { token, json }), 403, 'not_authorized')
      }
    }
    expectError(await api.delete(`/tasks/${task.id}`, { token }), 403, 'not_authorized')
    expectError(await api.delete(`/tasks/${task.id}?permanent=true`, { token }), 403, 'not_authorized')
    expect((await api.post(`/tasks/${trashed.id}/restore`, { token })).status).toBeGreaterThanOrEqual(403)
    expect((await api.delete('/tasks/trash', { token })).status).toBeLessThan(300)

    expect((await api.get(`/tasks/${task.id}`, { token: ada.token })).body).toEqual(task)
    const trash = await api.get('/tasks/trash', { token: ada.token })
    expect(trash.body.map(({ id }: { id: string }) => id)).toEqual([trashed.id])
    expect((await api.get('/tasks', { token })).body).toEqual([])
  })

  test('learn nothing from a deletion with If-Match, which uses up no number', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const task = await api.task(ada)

    for (const query of ['', '?permanent=true']) {
      for (const tag of ['"9"', '"1"', '*']) {
        const headers = { 'if-match': tag }
        const answer = await api.delete(`/tasks/${task.id}${query}`, { token: bob.token, headers })
        expectError(answer, 403, 'not_authorized')
      }
    }

    expect(await api.sql('select last_version from user_versions where user_id = $1', [bob.id])).toEqual([
      [0],
    ])
    expect((await api.get(`/tasks/${task.id}`, { token: ada.token })).body).toEqual(task)
  })

  test('do not meet when an import gave both a task of the same id', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const task = await api.task(ada)
    await api.sql(`insert into tasks (id, user_id, title, version) values ($1, $2, 'his', 1)`, [
      task.id,
      bob.id,
    ])
    await api.sql('update user_versions set last_version = 1 where user_id = $1', [bob.id])
    const { token } = ada
    const at = `/tasks/${task.id}`
    const batch = (operation: object) =>
      api.post('/tasks/batch', { token, json: { operations: [{ id: task.id, ...operation }] } })

    const answers = [
      await api.patch(at, { token, json: { title: 'hers' } }),
      await batch({ op: 'update', task: { title: 'still hers' } }),
      await batch({ op: 'delete' }),
      await api.post(`${at}/restore`, { token }),
      await api.delete(at, { token }),
      await api.delete('/tasks/trash', { token }),
    ]

    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 204, 204])
    expect((await api.get(at, { token: bob.token })).body).toMatchObject({ title: 'his', version: 1 })
    expect((await api.get(at, { token })).status).toBe(403)
  })

  test('do not meet in lists and families of the same ids', async () => {
    const [ada, bob] = [await api.user(), await api.user()]
    const [listId, parentId, looseId] = [crypto.randomUUID(), crypto.randomUUID(), crypto.randomUUID()]
    const live = async ({ token }: { token: string }) => (await api.get('/tasks', { token })).body
    for (const user of [bob, ada]) {
      await api.post('/lists', { token: user.token, json: { id: listId, name: 'mine' } })
      await api.task(user, { id: parentId, list_id: listId })
      await api.task(user, { parent_id: parentId })
    }
    // His is in the list, hers is not.
    await api.task(bob, { id: looseId, list_id: listId })
    const loose = await api.task(ada, { id: looseId })
    const looseChild = await api.task(ada, { parent_id: looseId })
    const other = await api.task(ada, { parent_id: parentId })
    const his = await live(bob)
    const { token } = ada

    for (const at of ['', `/${listId}`]) {
      const { body } = await api.get(`/lists${at}?counts=true`, { token })
      expect([body].flat()).toMatchObject([{ open: 1, total: 1 }])
    }
    await api.patch(`/lists/${listId}`, { token, json: { name: 'hers' } })
    await api.delete(`/tasks/${parentId}`, { token })
    // Of these parents, hers is in the trash.
    const { body: alone } = await api.post(`/tasks/${other.id}/restore`, { token })
    await api.post(`/tasks/${parentId}/restore`, { token })
    await api.delete(`/lists/${listId}?tasks=trash`, { token })
    await api.delete(`/tasks/${parentId}?permanent=true`, { token })

    expect(alone).toMatchObject({ id: other.id, parent_id: null })
    expect(await live(ada)).toEqual([alone, looseChild, loose])
    const numberOf = 'select last_version from user_versions where user_id = $1'
    expect(await api.sql(numberOf, [ada.id])).toEqual([[18]])
    expect(await live(bob)).toEqual(his)
    expect((await api.get(`/lists/${listId}`, { token: bob.token })).body).toMatchObject({ name: 'mine' })
    expect((await api.get(`/lists/${listId}`, { token })).status).toBe(403)
  })

  test('cannot end each other’s sessions', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const [session] = (await api.get('/auth/sessions', { token: ada.token })).body

    const answer = await api.delete(`/auth/sessions/${session.id}`, { token: bob.token })
    await api.post('/auth/logout?scope=all', { token: bob.token })

    expect(answer.status).toBe(404)
    expect((await api.get('/users/me', { token: ada.token })).status).toBe(200)
  })

  test('cannot make a task for another user', async () => {
    const ada = await api.user()
    const bob = await api.user()

    const made = await api.post('/tasks', {
      token: ada.token,
      json: { title: 'x', user_id: bob.id, userId: bob.id, id: bob.id },
    })

    expect(made.body.user_id).toBe(ada.id)
    expect((await api.get('/tasks', { token: bob.token })).body).toEqual([])
  })

  test('may use the same Idempotency-Key for tasks of their own', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const headers = { 'idempotency-key': 'the same' }

    const hers = await api.post('/tasks', { token: ada.token, json: { title: 'hers' }, headers })
    const his = await api.post('/tasks', { token: bob.token, json: { title: 'his' }, headers })

    expect([hers.status, his.status]).toEqual([201, 201])
    expect([his.body.user_id, his.body.title]).toEqual([bob.id, 'his'])
  })
})

onBothDatabases('every statement', api => {
  test('about a user’s rows names the user, but for three that say why', async () => {
    const { url, texts, stop } = listening(api)
    await callEveryRoute({ ...api, ...client(url) })
    await stop()

    expect(
      [...texts].filter(text => /\b(tasks|lists|task_tombstones|user_versions)\b/.test(text)).length,
    ).toBeGreaterThan(20)
    expect([...texts].filter(text => /\b(sessions|api_tokens|users)\b/.test(text)).length).toBeGreaterThan(10)
    expect(unownedStatements(texts)).toEqual([])
  }, 30_000)
})

test('a statement about a user’s rows without the user is reported with what to do', () => {
  const change = 'update "tasks" set "title" = $1 where "tasks"."id" = $2'
  const forgotten = [
    change,
    `${change} and exists (select 1 from "lists" where "lists"."user_id" = $3)`,
    `${change} or "tasks"."user_id" = $3`,
    `${change} and ("tasks"."title" = $3 or "tasks"."user_id" = $4)`,
    'update "tasks" set "user_id" = $1 where "tasks"."id" = $2',
    'insert into "task_tombstones" select "id", "user_id" from "tasks" where "tasks"."id" = $1',
    'select "user_id" = $1 from "tasks" where "tasks"."id" = $2',
    'select count(*) filter (where "tasks"."user_id" = $1) from "tasks"',
  ]

  expect(unownedStatements([...forgotten, `${change} and ("tasks"."user_id" = $3)`])).toEqual(
    forgotten.map(
      text => `this statement can read or change rows of another user; add tasks.user_id = … to it: ${text}`,
    ),
  )
})

test('no id from a request can be passed as the user', () => {
  const read = (tasks: TaskService, taskId: string) =>
    // @ts-expect-error: only what has proved who the user is makes a UserId (`bun run check` sees this).
    tasks.read(taskId, taskId)
  expect(read).toBeFunction()
})

/** Each route once or more often, so that every statement is sent. */
async function callEveryRoute(api: Client) {
  const ada = await api.user()
  const bob = await api.user()
  const { token } = ada
  const task = await api.task(ada)
  await api.post('/tasks', { token, json: { title: 'once' }, headers: { 'idempotency-key': 'x' } })
  for (const query of [
    '',
    '?status=pending',
    '?status=pending&status=completed',
    '?total=true&q=milk&tag=a',
    '?sort=-priority,title',
    '?overdue=true',
  ]) {
    await api.get(`/tasks${query}`, { token })
  }
  for (const path of [
    '/tasks/trash',
    '/tasks/changes',
    '/tasks/stats',
    '/auth/sessions',
    '/users/me',
    `/tasks/${task.id}`,
  ]) {
    await api.get(path, { token })
  }
  await api.get(`/tasks/${task.id}`, { token: bob.token })
  await callEveryListRoute(api, token, bob.token)
  await api.patch(`/tasks/${task.id}`, { token, json: { title: 'x' } })
  const [one, two] = [await api.task(ada), await api.task(ada)]
  const operations = [
    { op: 'create', task: { title: 'x' } },
    { op: 'update', id: one.id, task: { title: 'x' } },
    { op: 'delete', id: two.id },
  ]
  await api.post('/tasks/batch', { token, json: { operations } })
  await api.delete(`/tasks/${task.id}`, { token })
  await api.post(`/tasks/${task.id}/restore`, { token })
  await api.delete(`/tasks/${task.id}?permanent=true`, { token })
  await api.delete('/tasks/trash', { token })
  await api.post('/auth/refresh', { json: { refresh_token: ada.refreshToken } })
  const script = await makeApiToken(api, ada)
  await api.get('/tasks', { token: script.token })
  await api.get('/auth/tokens', { token })
  await api.delete(`/auth/tokens/${script.id}`, { token })
  const { ticket } = (await api.post('/auth/tickets', { token, json: { for: 'events' } })).body
  await api.request('HEAD', `/tasks/events?ticket=${ticket}`)
  await api.post('/auth/logout?scope=others', { token })
  await api.delete(`/auth/sessions/${crypto.randomUUID()}`, { token })
  const json = { email: `new-${ada.email}`, current_password: ada.password }
  await api.patch('/users/me', { token, json })
  const password = { current_password: ada.password, new_password: 'staple my battery' }
  await api.post('/users/me/password', { token, json: password })
  const eve = await api.user()
  await api.task(eve)
  await api.delete('/users/me', { token: eve.token, json: { password: eve.password } })
  for (const text of [script.token, ada.refreshToken, bob.token])
    await api.post('/auth/revoke', { form: { token: text } })
}

async function callEveryListRoute(api: Client, token: string, stranger: string) {
  for (const tasks of ['keep', 'trash']) {
    const { body: list } = await api.post('/lists', { token, json: { name: 'x' } })
    await api.post('/lists', { token, json: { id: list.id, name: 'x' } })
    await api.post('/lists', { token, json: { name: 'x' }, headers: { 'idempotency-key': tasks } })
    const { body: parent } = await api.post('/tasks', { token, json: { title: 'x', list_id: list.id } })
    await api.post('/tasks', { token, json: { title: 'x', parent_id: parent.id } })
    for (const path of [
      '/lists?counts=true&total=true',
      '/lists?limit=1',
      `/lists/${list.id}`,
      `/lists/${list.id}?counts=true`,
      `/tasks?list=${list.id}`,
      `/tasks?list=${list.id}&status=pending`,
      `/tasks?list=none&parent=none`,
      `/tasks/stats?list=${list.id}`,
    ])
      await api.get(path, { token })
    await api.get(`/lists/${list.id}`, { token: stranger })
    await api.patch(`/lists/${list.id}`, { token, json: { name: 'y' } })
    await api.delete(`/lists/${list.id}?tasks=${tasks}`, { token })
    await api.post('/lists', { token, json: { id: list.id, name: 'x' } })
  }
}
