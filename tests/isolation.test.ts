import { expect, test } from 'bun:test'
import { onBothDatabases, type Person, type Service } from './support/harness.ts'
import { expectError } from './support/wire.ts'

onBothDatabases('two people', api => {
  test('see nothing of each other', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const hers = await api.task(ada, { title: 'hers alone' })
    const trashed = await api.task(ada, { title: 'hers in the trash' })
    await api.delete(`/tasks/${trashed.id}`, { token: ada.token })
    const gone = await api.task(ada, { title: 'hers for good' })
    await api.delete(`/tasks/${gone.id}?permanent=true`, { token: ada.token })

    for (const path of [
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
    expect(changes.body).toMatchObject({ tasks: [], deleted: [] })
    const stats = await api.get('/tasks/stats', { token: bob.token })
    expect(JSON.stringify(stats.body)).not.toMatch(/[1-9]/)
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

  test('cannot end each other’s sessions', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const [session] = (await api.get('/auth/sessions', { token: ada.token })).body

    const answer = await api.delete(`/auth/sessions/${session.id}`, { token: bob.token })
    await api.post('/auth/logout?scope=all', { token: bob.token })

    expect(answer.status).toBe(404)
    expect((await api.get('/users/me', { token: ada.token })).status).toBe(200)
  })

  test('cannot make a task for somebody else', async () => {
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

onBothDatabases(
  'every statement',
  api => {
    test('of a person’s data names the person, but the one that decides between 403 and 404', async () => {
      const ada = await api.user()
      const bob = await api.user()
      await callEveryRoute(api, ada, bob)

      // There is one session, so the database itself can say what it was asked.
      const rows = (await api.sql('select statement from pg_prepared_statements', [])) as [string][]
      const statements = rows.map(([text]) => text)
      const ofTasks = statements.filter(text => /\b(tasks|task_tombstones|task_counters)\b/.test(text))
      const ofAccounts = statements.filter(
        text => /\b(sessions|users)\b/.test(text) && !ofTasks.includes(text),
      )
      const namesOwner = /\buser_id"? = \$|insert into "users"/
      const namesPerson =
        /\b(user_id|id|email_key|token_hash|previous_hash)"? = (\$|\w)|insert into "sessions"/

      expect(ofTasks.length).toBeGreaterThan(15)
      const exception = expect.stringMatching(/^select "user_id" from "tasks" where "tasks"\."id" = \$1/)
      expect(ofTasks.filter(text => !namesOwner.test(text))).toEqual([exception])
      expect(ofAccounts.length).toBeGreaterThan(5)
      expect(ofAccounts.filter(text => !namesPerson.test(text))).toEqual([])
    }, 30_000)
  },
  { DATABASE_POOL_SIZE: '1' },
  // Behind a proxy nothing is prepared.
  { direct: true },
)

/** Each route once or more often, so that each statement has been prepared. */
async function callEveryRoute(api: Service, ada: Person, bob: Person) {
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
  await api.patch(`/tasks/${task.id}`, { token, json: { title: 'x' } })
  await api.post('/tasks/batch', { token, json: { operations: [{ op: 'create', task: { title: 'x' } }] } })
  await api.delete(`/tasks/${task.id}`, { token })
  await api.post(`/tasks/${task.id}/restore`, { token })
  await api.delete(`/tasks/${task.id}?permanent=true`, { token })
  await api.delete('/tasks/trash', { token })
  await api.post('/auth/refresh', { json: { refresh_token: ada.refreshToken } })
}
