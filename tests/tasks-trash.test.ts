import { expect, test } from 'bun:test'
import { byHand } from './support/by-hand.ts'
import { onBothDatabases } from './support/harness.ts'
import { serviceOn } from './support/task-service.ts'

onBothDatabases('the trash', api => {
  test('what is deleted is in the trash, last deleted first, and no other user sees it', async () => {
    const ada = await api.user()
    const bob = await api.user()
    const first = await api.task(ada, { title: 'first' })
    const second = await api.task(ada, { title: 'second' })
    await api.task(ada, { title: 'kept' })
    await api.delete(`/tasks/${second.id}?permanent=false`, { token: ada.token })
    await api.delete(`/tasks/${first.id}`, { token: ada.token })

    const trash = await api.get('/tasks/trash', { token: ada.token })

    const moment = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
    expect(trash.body).toEqual([
      { ...first, version: 5, deleted_at: moment },
      { ...second, version: 4, deleted_at: moment },
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
    const headers = { 'if-none-match': '"2"' }
    const known = await api.post(`/tasks/${task.id}/restore`, { token: ada.token, headers })
    expect(known.status).toBe(412)
    expect((await restore(ada.token, '"2"')).status).toBe(200)
    expect((await restore(ada.token, '"2"')).status).toBe(412)
    expect((await restore(ada.token, '"3"')).status).toBe(200)
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

  test('nothing of what a task says is kept when it is gone for good, in any table', async () => {
    const ada = await api.user()
    const words = ['zanzibar', 'quetzal', 'xylophone']
    const [title, description, tag] = words
    const make = () => api.task(ada, { title, description, tags: [tag] })
    const [erased, purged, emptied] = [await make(), await make(), await make()]
    await api.patch(`/tasks/${erased.id}`, { token: ada.token, json: { priority: 1 } })
    const tables = await api.sql(
      `select format('%I.%I', table_schema, table_name) from information_schema.tables
       where table_type = 'BASE TABLE' and table_schema in ('public', 'drizzle')`,
      [],
    )
    async function found() {
      const rows = tables.map(([name]) => `select t::text from ${name} t`).join(' union all ')
      const texts = await api.sql(rows, [])
      return words.filter(word => texts.some(([text]) => `${text}`.includes(word)))
    }

    await api.delete(`/tasks/${erased.id}?permanent=true`, { token: ada.token })
    for (const { id } of [purged, emptied]) await api.delete(`/tasks/${id}`, { token: ada.token })
    const beforePurge = await found()
    await byHand(api.sql, `update tasks set deleted_at = now() - interval '40 days' where id = $1`, [
      purged.id,
    ])
    await serviceOn(api).purge()
    const beforeEmptying = await found()
    await api.delete('/tasks/trash', { token: ada.token })

    expect([beforePurge, beforeEmptying, await found()]).toEqual([words, words, []])
  })

  test('a trash of more than one step is emptied whole', async () => {
    const ada = await api.user()
    await api.sql(
      `insert into tasks (id, user_id, title, version, deleted_at)
       select gen_random_uuid(), $1, 'old', n, now() from generate_series(1, 1200) n`,
      [ada.id],
    )
    await api.sql('update user_versions set last_version = 1200 where user_id = $1', [ada.id])

    // The second time there is nothing in it.
    for (let i = 0; i < 2; i++)
      expect((await api.delete('/tasks/trash', { token: ada.token })).status).toBe(204)

    const left = await api.sql('select count(*) from tasks where user_id = $1', [ada.id])
    const tombstones = await api.sql('select count(*) from task_tombstones where user_id = $1', [ada.id])
    expect([left, tombstones]).toEqual([[[0]], [[1200]]])
  })

  test('up to its thirtieth day a task is in the trash, and up to its ninetieth a deletion is known', async () => {
    const ada = await api.user()
    const [trashed, gone] = [await api.task(ada), await api.task(ada)]
    await api.delete(`/tasks/${trashed.id}`, { token: ada.token })
    await api.delete(`/tasks/${gone.id}?permanent=true`, { token: ada.token })
    await age('tasks', trashed, '29 days 23 hours')
    await age('task_tombstones', gone, '89 days 23 hours')

    await serviceOn(api).purge()

    expect((await api.get('/tasks/trash', { token: ada.token })).body).toHaveLength(1)
    const { body } = await api.get('/tasks/changes', { token: ada.token })
    expect(body.deleted).toEqual([trashed.id, gone.id])
  })

  test('a deletion is remembered from the moment that the task is gone for good, however the trash is emptied', async () => {
    const ada = await api.user()
    const [emptied, purged] = [await api.task(ada), await api.task(ada)]
    for (const { id } of [emptied, purged]) await api.delete(`/tasks/${id}`, { token: ada.token })
    await age('tasks', purged, '40 days')
    await serviceOn(api).purge()
    await age('tasks', emptied, '9 days')
    await api.delete('/tasks/trash', { token: ada.token })

    const ages = await api.sql(
      `select id, extract(day from now() - deleted_at)::int from task_tombstones where user_id = $1`,
      [ada.id],
    )

    expect(new Map(ages as [string, number][])).toEqual(
      new Map([
        [purged.id, 0],
        [emptied.id, 0],
      ]),
    )
  })

  test('a restored task has changed, and a deletion, alone or in a batch, is no change of the task', async () => {
    const ada = await api.user()
    const [one, two] = [await api.task(ada), await api.task(ada)]
    await api.delete(`/tasks/${one.id}`, { token: ada.token })
    const operations = [{ op: 'delete', id: two.id }]
    await api.post('/tasks/batch', { token: ada.token, json: { operations } })

    const { body: trash } = await api.get('/tasks/trash', { token: ada.token })
    const { body: restored } = await api.post(`/tasks/${two.id}/restore`, { token: ada.token })

    expect(trash.map((task: { updated_at: string }) => task.updated_at)).toEqual([
      two.updated_at,
      one.updated_at,
    ])
    expect(restored.updated_at > two.updated_at).toBe(true)
  })

  test('a deletion that came with an import does not stop the trash of the same task', async () => {
    const ada = await api.user()
    const tasks = [await api.task(ada), await api.task(ada)]
    for (const { id } of tasks) {
      await api.delete(`/tasks/${id}`, { token: ada.token })
      await api.sql(
        `insert into task_tombstones (id, user_id, version, deleted_at) values ($1, $2, 1, now() - interval '80 days')`,
        [id, ada.id],
      )
    }
    await age('tasks', tasks[0], '31 days')

    await serviceOn(api).purge()
    const emptied = await api.delete('/tasks/trash', { token: ada.token })

    expect(emptied.status).toBe(204)
    const tombstones = await api.sql(
      `select version, deleted_at > now() - interval '32 days' from task_tombstones where user_id = $1 order by 1`,
      [ada.id],
    )
    expect(tombstones).toEqual([
      [3, true],
      [4, true],
    ])
  })

  test('what cannot be purged of one user is logged, and keeps no other user waiting', async () => {
    const [first, second, third] = [await api.user(), await api.user(), await api.user()]
    const users = [first, second, third].toSorted((a, b) => (a.id < b.id ? -1 : 1))
    for (const user of [...users, ...users]) {
      const task = await api.task(user)
      await api.delete(`/tasks/${task.id}`, { token: user.token })
      await age('tasks', task, '31 days')
    }
    const poisoned = users[0]!
    await api.sql(
      `create function refuse() returns trigger language plpgsql as $$ begin raise exception 'poisoned'; end $$`,
      [],
    )
    await api.sql(
      `create trigger poisoned before insert on task_tombstones for each row when (new.user_id = '${poisoned.id}')
       execute function refuse()`,
      [],
    )
    const lines: Record<string, unknown>[] = []
    const service = serviceOn(api, 'a secret', (_, fields) => lines.push(fields!))
    const trashOf = async ({ token }: { token: string }) =>
      (await api.get('/tasks/trash', { token })).body.length

    const kept = await api.task(poisoned)

    await service.purge()
    const refused = await api.delete(`/tasks/${kept.id}?permanent=true`, { token: poisoned.token })

    expect(refused.status).toBe(500)
    expect((await api.get(`/tasks/${kept.id}`, { token: poisoned.token })).body).toEqual(kept)
    expect(lines).toMatchObject([{ user_id: poisoned.id, code: 'P0001' }])
    expect(await Promise.all(users.map(trashOf))).toEqual([2, 0, 0])
    await api.sql('drop trigger poisoned on task_tombstones', [])
    await api.sql('drop function refuse', [])
    await service.purge()
    expect(await Promise.all(users.map(trashOf))).toEqual([0, 0, 0])
  })

  test('the purge comes to every user, however many there are', async () => {
    await api.sql(
      `with counters as (
         insert into user_versions (user_id, last_version) select gen_random_uuid(), 1 from generate_series(1, 250) returning user_id
       ), accounts as (
         insert into users (id, email, normalized_email, password_hash)
         select user_id, user_id || '@example.com', user_id || '@example.com', '' from counters returning id
       )
       insert into task_tombstones (id, user_id, version, deleted_at)
       select gen_random_uuid(), id, 1, now() - interval '91 days' from accounts`,
      [],
    )
    // As many as two steps take: the step after them finds none.
    const ada = await api.user()
    await api.sql(
      `insert into task_tombstones (id, user_id, version, deleted_at)
       select gen_random_uuid(), $1, n, now() - interval '91 days' from generate_series(1, 400) n`,
      [ada.id],
    )
    const old = async () =>
      Number(
        (
          await api.sql(
            `select count(*) from task_tombstones where deleted_at < now() - interval '90 days'`,
            [],
          )
        )[0]![0],
      )
    expect(await old()).toBe(650)

    const lines: unknown[] = []
    await serviceOn(api, 'a secret', message => lines.push(message)).purge()

    expect([await old(), lines]).toEqual([0, []])
  })

  /** As if it had been deleted that long ago. */
  const age = (
    table: 'tasks' | 'task_tombstones' | 'list_tombstones',
    { id }: { id: string },
    interval: string,
  ) => byHand(api.sql, `update ${table} set deleted_at = now() - interval '${interval}' where id = $1`, [id])

  test('after thirty days a task goes by itself, and the changes say the same before and after', async () => {
    const ada = await api.user()
    const old = await api.task(ada, { title: 'old' })
    const recent = await api.task(ada, { title: 'recent' })
    for (const { id } of [old, recent]) await api.delete(`/tasks/${id}`, { token: ada.token })
    await byHand(api.sql, `update tasks set deleted_at = now() - interval '30 days 1 minute' where id = $1`, [
      old.id,
    ])
    const { body: before } = await api.get('/tasks/changes', { token: ada.token })

    await Promise.all([serviceOn(api).purge(), serviceOn(api).purge(), serviceOn(api).purge()])

    const { body: trash } = await api.get('/tasks/trash', { token: ada.token })
    const { body: after } = await api.get('/tasks/changes', { token: ada.token })
    expect(trash.map((task: { title: string }) => task.title)).toEqual(['recent'])
    expect(after).toEqual(before)
  })

  test('after ninety days a deletion is forgotten, and a cursor from before it is refused', async () => {
    const ada = await api.user()
    const kept = await api.task(ada)
    const { body: start } = await api.get('/tasks/changes', { token: ada.token })
    const gone = await api.task(ada)
    await api.delete(`/tasks/${gone.id}?permanent=true`, { token: ada.token })
    const { body: list } = await api.post('/lists', { token: ada.token, json: { name: 'gone' } })
    await api.delete(`/lists/${list.id}`, { token: ada.token })
    const { body: end } = await api.get('/tasks/changes', { token: ada.token })
    await age('task_tombstones', gone, '90 days 1 hour')
    await age('list_tombstones', list, '90 days 1 hour')
    const bob = await api.user()

    await serviceOn(api).purge()

    const forgotten = 'select forgotten_version from user_versions where user_id = $1'
    expect(await api.sql(forgotten, [bob.id])).toEqual([[0]])
    const since = (cursor: string) => api.get(`/tasks/changes?since=${cursor}`, { token: ada.token })
    for (const [table, { id }] of [
      ['task_tombstones', gone],
      ['list_tombstones', list],
    ])
      expect(await api.sql(`select 1 from ${table} where id = $1`, [id])).toEqual([])
    expect(await since(start.cursor)).toMatchObject({ status: 410, body: { code: 'cursor_expired' } })
    expect((await since(end.cursor)).body).toMatchObject({ tasks: [], deleted: [], deleted_lists: [] })
    const again = await api.get('/tasks/changes', { token: ada.token })
    expect(again.body).toMatchObject({ tasks: [kept], deleted: [] })
  })

  test('of deletions that are forgotten together, a cursor before the last one of its user is refused', async () => {
    const users = [await api.user(), await api.user()]
    const places: [token: string, cursor: string][] = []
    for (const user of users) {
      const gone = [await api.task(user), await api.task(user), await api.task(user)]
      for (const task of gone) {
        await api.delete(`/tasks/${task.id}?permanent=true`, { token: user.token })
        const { body } = await api.get('/tasks/changes', { token: user.token })
        places.push([user.token, body.cursor])
        await age('task_tombstones', task, '91 days')
      }
    }

    await serviceOn(api).purge()
    const statuses = places.map(async ([token, cursor]) => {
      const { status } = await api.get(`/tasks/changes?since=${cursor}`, { token })
      return status
    })
    expect(await Promise.all(statuses)).toEqual([410, 410, 200, 410, 410, 200])
  })

  test('a deletion that is forgotten after a later one makes no cursor between them valid again', async () => {
    const ada = await api.user()
    const [first, second] = [await api.task(ada), await api.task(ada)]
    const erase = ({ id }: { id: string }) => api.delete(`/tasks/${id}?permanent=true`, { token: ada.token })
    await erase(first)
    const { body: between } = await api.get('/tasks/changes', { token: ada.token })
    await erase(second)

    for (const task of [second, first]) {
      await age('task_tombstones', task, '91 days')
      await serviceOn(api).purge()
      expect(await api.sql('select 1 from task_tombstones where id = $1', [task.id])).toEqual([])
      const answer = await api.get(`/tasks/changes?since=${between.cursor}`, { token: ada.token })
      expect(answer).toMatchObject({ status: 410, body: { code: 'cursor_expired' } })
    }
  })
})
