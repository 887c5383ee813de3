import { describe, expect, test } from 'bun:test'
import type { Driver } from '../src/db/driver.ts'
import { noPrecondition } from '../src/http/entity-tag.ts'
import { byHand } from './support/by-hand.ts'
import { type Answer, type Service, startService, type User } from './support/harness.ts'
import { speak } from './support/mcp.ts'
import { rowOf, serviceWithMeetings, versionsOf } from './support/meet.ts'
import { serviceOn } from './support/task-service.ts'
import { until } from './support/until.ts'

const { api, db, meeting } = serviceWithMeetings()

type Call = () => Promise<Answer>

/** Requests of one user that all wait for the user's counter, and then run in this order. */
const race = (user: User, ...calls: Call[]) => meeting.meet(versionsOf(user), calls)

/** What one user does to one task. */
function actions({ token }: User, { id }: { id: string }) {
  const at = `/tasks/${id}`
  const headers = (ifMatch?: string) => ({ headers: ifMatch ? { 'if-match': ifMatch } : {} })
  return {
    read: () => api.get(at, { token }),
    change: (json: object, ifMatch?: string) => () => api.patch(at, { token, json, ...headers(ifMatch) }),
    trash: (ifMatch?: string) => () => api.delete(at, { token, ...headers(ifMatch) }),
    erase: (ifMatch?: string) => () => api.delete(`${at}?permanent=true`, { token, ...headers(ifMatch) }),
    restore: (ifMatch?: string) => () => api.post(`${at}/restore`, { token, ...headers(ifMatch) }),
    batch:
      (...operations: object[]) =>
      () =>
        api.post('/tasks/batch', { token, json: { operations } }),
    emptyTrash: () => api.delete('/tasks/trash', { token }),
  }
}

const statuses = (answers: Answer[]) => answers.map(({ status }) => status)
const titles = async ({ token }: User) =>
  (await api.get('/tasks', { token })).body.map(({ title }: { title: string }) => title)
const numberOf = async ({ id }: User) =>
  Number((await api.sql('select last_version from user_versions where user_id = $1', [id]))[0]![0])

/** A call that loses its connection to the database while it waits for the row of a task. */
async function cutOff<T>(task: { id: string }, call: () => Promise<T>): Promise<T> {
  const [result] = await meeting.meet(rowOf(task), [call], async () => {
    const [pid] = await meeting.waiting()
    await meeting.sql`select pg_terminate_backend(${pid!})`
  })
  return result!
}

async function begin() {
  const ada = await api.user()
  const task = await api.task(ada)
  return { ada, task, ...actions(ada, task) }
}

test('of two changes of one version that meet, the second is refused', async () => {
  const { ada, read, change } = await begin()

  const answers = await race(ada, change({ title: 'a' }, '"1"'), change({ title: 'b' }, '"1"'))

  expect(statuses(answers)).toEqual([200, 412])
  expect((await read()).body).toMatchObject({ title: 'a', version: 2 })
})

test('a change that waited for another one changes what that one left', async () => {
  const { ada, read, change } = await begin()

  const answers = await race(ada, change({ title: 'new' }), change({ priority: 3 }))

  expect(statuses(answers)).toEqual([200, 200])
  expect((await read()).body).toEqual(answers[1]!.body)
  expect(answers[1]!.body).toMatchObject({ title: 'new', priority: 3, version: 3 })
})

test('a change that waited for a deletion is a 404 and changes nothing in the trash', async () => {
  const { ada, trash, change } = await begin()

  const answers = await race(ada, trash(), change({ title: 'late' }))

  expect(statuses(answers)).toEqual([204, 404])
  const [trashed] = (await api.get('/tasks/trash', { token: ada.token })).body
  expect(trashed).toMatchObject({ title: 'Buy milk', version: 2 })
})

describe('a change that came to nothing because of a deletion', () => {
  /** The task is trashed before the change is written, and is back before the change looks why it came to nothing. */
  async function changeBetween(json: object) {
    const { ada, task, read, trash, restore } = await begin()
    const { query, transaction } = api.driver
    const driver: Driver = {
      ...api.driver,
      async query(...statement) {
        await trash()()
        return query(...statement)
      },
      async transaction(work) {
        await restore()()
        return transaction(work)
      },
    }
    const changed = serviceOn({ ...api, driver }).update(ada.id, task.id, json, noPrecondition)
    return { code: await changed.catch(({ code }) => code), read }
  }

  test('is carried out when that is undone', async () => {
    const { read } = await changeBetween({ title: 'late' })

    expect((await read()).body).toMatchObject({ title: 'late', version: 4 })
  })

  test('is refused as any other when it names a list that is not there', async () => {
    const { code, read } = await changeBetween({ list_id: crypto.randomUUID() })

    expect(code).toBe('list_not_found')
    expect((await read()).body).toMatchObject({ list_id: null, version: 3 })
  })
})

test.each(['trash', 'erase'] as const)('a deletion (%s) of a version that is gone is refused', async way => {
  const { ada, read, change, ...actions } = await begin()

  const answers = await race(ada, change({ title: 'new' }), actions[way]('"1"'))

  expect(statuses(answers)).toEqual([200, 412])
  expect((await read()).body).toMatchObject({ title: 'new', version: 2 })
})

test('of two deletions that meet, the second finds nothing, and the task keeps its moment', async () => {
  const { ada, trash } = await begin()

  const answers = await race(ada, trash(), trash())

  expect(statuses(answers)).toEqual([204, 404])
  expect((await api.get('/tasks/trash', { token: ada.token })).body).toMatchObject([{ version: 2 }])
})

test('of two permanent deletions that meet, the second finds nothing and uses up no number', async () => {
  const { ada, erase } = await begin()

  const answers = await race(ada, erase(), erase())

  expect(statuses(answers)).toEqual([204, 404])
  expect(await numberOf(ada)).toBe(2)
})

test('of two that restore a version at once, the second is refused, with the task as it is', async () => {
  const { ada, trash, restore } = await begin()
  await trash()()

  const answers = await race(ada, restore('"2"'), restore('"2"'))

  expect(statuses(answers)).toEqual([200, 412])
  expect(answers[1]!.body.current).toEqual(answers[0]!.body)
})

test('a batch that waited for a change of a version it names changes nothing', async () => {
  const { ada, task, change, batch } = await begin()

  const answers = await race(
    ada,
    change({ title: 'new' }),
    batch(
      { op: 'create', task: { title: 'x' } },
      { op: 'update', id: task.id, version: 1, task: { title: 'late' } },
    ),
  )

  expect(statuses(answers)).toEqual([200, 412])
  expect(answers[1]!.body.index).toBe(1)
  expect(await titles(ada)).toEqual(['new'])
  expect(await numberOf(ada)).toBe(2)
})

test('a batch that waited for a deletion changes nothing and is a 404', async () => {
  const { ada, task, trash, batch } = await begin()

  const answers = await race(
    ada,
    trash(),
    batch({ op: 'create', task: { title: 'x' } }, { op: 'update', id: task.id, task: { title: 'late' } }),
  )

  expect(statuses(answers)).toEqual([204, 404])
  expect(await titles(ada)).toEqual([])
  expect((await api.get('/tasks/trash', { token: ada.token })).body).toMatchObject([{ title: 'Buy milk' }])
})

test('a batch that waited for a change without naming a version comes after it', async () => {
  const { ada, task, change, batch } = await begin()

  const answers = await race(
    ada,
    change({ title: 'new', tags: ['kept'] }),
    batch({ op: 'update', id: task.id, task: { title: 'later' } }),
  )

  expect(statuses(answers)).toEqual([200, 200])
  expect(answers[1]!.body.results[0].task).toMatchObject({ title: 'later', tags: ['kept'], version: 3 })
})

test('two batches on the same tasks in opposite order are carried out one after the other', async () => {
  const { ada, task, batch } = await begin()
  const other = await api.task(ada)
  const change = (ids: string[], title: string) =>
    batch(...ids.map(id => ({ op: 'update', id, task: { title } })))

  const answers = await race(ada, change([task.id, other.id], 'one'), change([other.id, task.id], 'two'))

  expect(statuses(answers)).toEqual([200, 200])
  expect(await titles(ada)).toEqual(['two', 'two'])
  expect(await numberOf(ada)).toBe(6)
})

test('what comes after an operation that the database did not answer is not tried', async () => {
  const { ada, task } = await begin()
  const [first, last] = [crypto.randomUUID(), crypto.randomUUID()]
  const unanswered = { op: 'update', id: task.id, task: { title: 'changed' } }
  const operations = [
    { op: 'create', id: first, task: { title: 'before' } },
    unanswered,
    { op: 'drop' },
    { op: 'create', id: last, task: { title: 'after' } },
  ]
  const send = (json: object) => cutOff(task, () => api.post('/tasks/batch', { token: ada.token, json }))

  const { status, body } = await send({ atomic: false, operations })
  expect(status).toBe(200)
  expect(body.results).toMatchObject([
    { id: first, status: 201 },
    { id: task.id, status: 503, error: { code: 'unavailable', index: 1 } },
    { status: 422, error: { index: 2 } },
    { id: last, status: 503, error: { code: 'unavailable', index: 3 } },
  ])
  expect((await titles(ada)).sort()).toEqual(['Buy milk', 'before'])

  for (const atomic of [true, false]) {
    // Nothing is written, so that it can be sent again as it is.
    const nothing = await send({ atomic, operations: [unanswered, operations[3]] })
    expect([nothing.status, nothing.body.code, nothing.body.index]).toEqual([503, 'unavailable', undefined])
  }
  expect((await titles(ada)).sort()).toEqual(['Buy milk', 'before'])
})

test('two creates with one key that meet make one task, and neither is refused', async () => {
  const ada = await api.user()
  const create = () =>
    api.post('/tasks', { token: ada.token, json: { title: 'x' }, headers: { 'idempotency-key': 'k' } })

  const answers = await race(ada, create, create)

  expect(statuses(answers)).toEqual([201, 201])
  expect(answers[1]!.body).toEqual(answers[0]!.body)
  expect(await numberOf(ada)).toBe(1)
})

describe('creates with one id of the client', () => {
  const id = () => crypto.randomUUID()
  const create =
    (through: Pick<Service, 'post'>, { token }: User, json: object) =>
    () =>
      through.post('/tasks', { token, json })

  test('that meet on two replicas make one task, and neither is refused', async () => {
    const replica = await startService('postgres', { DATABASE_URL: db.url })
    try {
      const ada = await api.user()
      const own = id()
      const answers = await race(
        ada,
        create(api, ada, { id: own, title: 'one' }),
        create(replica, ada, { id: own, title: 'two' }),
        create(replica, ada, { id: id(), title: 'other' }),
      )

      expect(statuses(answers)).toEqual([201, 201, 201])
      expect(answers[1]!.body).toEqual(answers[0]!.body)
      expect(await titles(ada)).toEqual(['other', answers[0]!.body.title])
      expect(await numberOf(ada)).toBe(2)
    } finally {
      await replica.stop()
    }
  })

  test('that name a list that is not there are refused, also when they waited', async () => {
    const { ada, change } = await begin()
    const json = { id: id(), title: 'x', list_id: crypto.randomUUID() }

    const answers = await race(ada, change({ title: 'first' }), create(api, ada, json))

    expect(statuses(answers)).toEqual([200, 422])
    expect(answers[1]!.body.code).toBe('list_not_found')
  })

  test('are refused when the task is created and deleted for good while they wait', async () => {
    const ada = await api.user()
    const own = id()
    const [answer] = await meeting.meet(
      async sql => {
        await sql`update user_versions set last_version = last_version + 2 where user_id = ${ada.id}`
        await sql`insert into task_tombstones values (${own}, ${ada.id}, 2, now())`
      },
      [create(api, ada, { id: own, title: 'again' })],
    )

    expect(answer).toMatchObject({ status: 409, body: { code: 'id_used' } })
    expect(await titles(ada)).toEqual([])
  })

  test('are 401 when the account is deleted while they wait', async () => {
    const ada = await api.user()
    const operations = [{ op: 'create', task: { title: 'late' } }]
    const batch = (atomic: boolean) => () =>
      api.post('/tasks/batch', { token: ada.token, json: { atomic, operations } })
    const mcp = speak(api, ada)
    // The first message loads the tools, which takes a moment.
    await mcp.send('tools/list')
    const addTask = () =>
      mcp.send('tools/call', { name: 'add_tasks', arguments: { tasks: [{ title: 'late' }] } })
    const answers = await meeting.meet(
      async sql => {
        await sql`delete from users where id = ${ada.id}`
        await sql`delete from user_versions where user_id = ${ada.id}`
      },
      [create(api, ada, { id: id(), title: 'late' }), batch(true), batch(false), addTask],
    )
    for (const { status, body } of answers) expect([status, body.code]).toEqual([401, 'invalid_token'])
  })
})

test('a task that is restored while the trash is emptied stays', async () => {
  const { ada, read, trash, restore, emptyTrash } = await begin()
  await trash()()

  const answers = await race(ada, restore(), emptyTrash)

  expect(statuses(answers)).toEqual([200, 204])
  expect((await read()).status).toBe(200)
})

test('the purge leaves a user alone whose tasks are being written, and others not', async () => {
  const { ada, task, read, trash } = await begin()
  const bob = await api.user()
  const his = await api.task(bob)
  await trash()()
  await api.delete(`/tasks/${his.id}`, { token: bob.token })
  await age([task, his], '31 days')

  await meeting.sql.begin(async sql => {
    await sql`update user_versions set last_version = last_version + 1 where user_id = ${ada.id}`
    await sql`update tasks set deleted_at = null, version = version + 1 where id = ${task.id}`
    await serviceOn(api).purge()
  })

  expect((await read()).status).toBe(200)
  expect((await api.get('/tasks/trash', { token: bob.token })).body).toEqual([])
})

test('a purge that the database does not answer comes to the other users, and is no error', async () => {
  const { task, trash } = await begin()
  const bob = await api.user()
  const his = await api.task(bob)
  await trash()()
  await api.delete(`/tasks/${his.id}`, { token: bob.token })
  await age([task, his], '31 days')
  const messages: string[] = []

  await cutOff(task, () => serviceOn(api, 'a secret', message => messages.push(message)).purge())

  const left = await api.sql('select id from tasks where id in ($1, $2)', [task.id, his.id])
  expect([left, messages]).toEqual([[[task.id]], []])
})

test('a task that is taken out of the trash by other means while the purge reaches it stays', async () => {
  const { task, read, trash } = await begin()
  await trash()()
  await age([task], '31 days')

  await meeting.meet(
    sql => sql`update tasks set deleted_at = null, version = version + 1 where id = ${task.id}`,
    [() => serviceOn(api).purge()],
  )

  expect(await api.sql('select 1 from task_tombstones where id = $1', [task.id])).toEqual([])
  expect((await read()).status).toBe(200)
})

test('a step of the trash has 200 tasks, so that locks are short', async () => {
  const ada = await api.user()
  await api.sql(
    `insert into tasks (id, user_id, title, version, deleted_at)
     select gen_random_uuid(), $1, 'old', n, now() - n * interval '1 second' from generate_series(1, 450) n`,
    [ada.id],
  )
  await api.sql('update user_versions set last_version = 450 where user_id = $1', [ada.id])
  const count = async (table: string) =>
    Number((await api.sql(`select count(*) from ${table} where user_id = $1`, [ada.id]))[0]![0])

  // The oldest go first. At the youngest of the second step it waits.
  const [answer] = await meeting.meet(
    sql => sql`select 1 from tasks where user_id = ${ada.id} and version = ${450 - 399} for update`,
    [() => api.delete('/tasks/trash', { token: ada.token })],
    async () => expect([await count('tasks'), await count('task_tombstones')]).toEqual([250, 200]),
  )

  expect(answer!.status).toBe(204)
  expect([await count('tasks'), await count('task_tombstones')]).toEqual([0, 450])
})

/** As if the tasks had been put into the trash that long ago. */
async function age(tasks: { id: string }[], interval: string) {
  for (const { id } of tasks) {
    await api.sql(
      `with next_version as (
         update user_versions set last_version = last_version + 1 where user_id = (select user_id from tasks where id = $1) returning last_version
       )
       update tasks set deleted_at = now() - $2::interval, version = next_version.last_version from next_version where id = $1`,
      [id, interval],
    )
  }
}

test('the purge waits for no writer: the user is left to the next one', async () => {
  const ada = await api.user()
  const task = await api.task(ada)
  await api.delete(`/tasks/${task.id}`, { token: ada.token })
  await byHand(api.sql, `update tasks set deleted_at = now() - interval '31 days' where id = $1`, [task.id])
  const forgotten = crypto.randomUUID()
  await api.sql(
    `insert into task_tombstones (id, user_id, version, deleted_at) values ($1, $2, 1, now() - interval '91 days')`,
    [forgotten, ada.id],
  )
  await meeting.sql.begin(async tx => {
    await versionsOf(ada)(tx)
    let isOver = false
    void serviceOn(api)
      .purge()
      .then(() => {
        isOver = true
      })
    await until(async () => isOver || (await meeting.waiting()).length > 0)

    expect(isOver).toBe(true)
  })
  const trash = async () => (await api.get('/tasks/trash', { token: ada.token })).body
  expect(await trash()).toMatchObject([{ id: task.id }])

  await serviceOn(api).purge()
  expect(await trash()).toEqual([])
})
