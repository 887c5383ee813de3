import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { type Answer, type Service, startService, type User } from './support/harness.ts'
import { createMeeting, type Meeting, rowOf, versionsOf } from './support/meet.ts'
import { startPgBouncer } from './support/pgbouncer.ts'
import { execute, type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { stopwatch } from './support/stopwatch.ts'
import { until } from './support/until.ts'

// What a batch, a permanent deletion and an emptied trash leave behind when something happens in their middle.

const answerMax = 2500

let server: PostgresServer
let url: string
beforeAll(async () => {
  server = await startPostgresServer()
  url = await server.createDatabase('todo')
}, 60_000)
afterAll(() => server?.close())

/** The same tests straight and through PgBouncer, which pools transactions. */
describe.each(['straight', 'through PgBouncer'])('in the middle of a transaction (%s)', way => {
  let api: Service
  let meeting: Meeting
  let proxy: Awaited<ReturnType<typeof startPgBouncer>> | undefined
  beforeAll(async () => {
    proxy = way === 'straight' ? undefined : await startPgBouncer(server.url)
    api = await startService('postgres', {
      DATABASE_URL: proxy?.through(url) ?? url,
      DATABASE_POOL_SIZE: '4',
    })
    meeting = createMeeting(url)
  }, 60_000)
  afterAll(async () => {
    await meeting?.close()
    await api?.stop()
    await proxy?.stop()
  })

  /** Everything that is stored of a user's tasks. */
  async function stored({ id }: User) {
    const { sql } = meeting
    return {
      tasks: [
        ...(await sql`select id, title, version, deleted_at from tasks where user_id = ${id} order by id`),
      ],
      tombstones: [...(await sql`select id, version from task_tombstones where user_id = ${id} order by id`)],
      counters: [...(await sql`select last_version from user_versions where user_id = ${id}`)],
    }
  }

  /** A user with a task in the list and one in the trash, and what is done to them in a transaction. */
  async function begin() {
    const user = await api.user()
    const { token } = user
    const [live, trashed] = [await api.task(user), await api.task(user)]
    await api.delete(`/tasks/${trashed.id}`, { token })
    const operations = [
      { op: 'create', task: { title: 'new' } },
      { op: 'update', id: live.id, task: { title: 'changed' } },
    ]
    return {
      user,
      live,
      trashed,
      batch: () => api.post('/tasks/batch', { token, json: { operations } }),
      erase: () => api.delete(`/tasks/${live.id}?permanent=true`, { token }),
      emptyTrash: () => api.delete('/tasks/trash', { token }),
    }
  }
  type Action = 'batch' | 'erase' | 'emptyTrash'
  const actions: Action[] = ['batch', 'erase', 'emptyTrash']
  /** The row at which an action waits behind its first statements. */
  const middleOf = (action: Action, { live, trashed }: { live: { id: string }; trashed: { id: string } }) =>
    rowOf(action === 'emptyTrash' ? trashed : live)

  test.each(actions)('a killed backend leaves nothing of it, and it can be done again: %s', async action => {
    const ada = await begin()
    const bob = await api.user()
    const before = await stored(ada.user)

    const [answer] = await meeting.meet(middleOf(action, ada), [ada[action]], async () => {
      // Another user's writes go on meanwhile, and are not undone with it.
      expect((await api.post('/tasks', { token: bob.token, json: { title: 'his' } })).status).toBe(201)
      const [pid] = await meeting.waiting()
      await meeting.sql`select pg_terminate_backend(${pid!})`
    })

    expect(answer).toMatchObject({ status: 503, body: { code: 'unavailable' } })
    expect(await stored(ada.user)).toEqual(before)
    expect((await api.get('/tasks', { token: bob.token })).body).toMatchObject([{ title: 'his' }])
    expect((await ada[action]()).status).toBeLessThan(300)
    expect(await stored(ada.user)).not.toEqual(before)
  })

  test.each(actions)('a lock that is not released is a 503 in time and leaves nothing: %s', async action => {
    const ada = await begin()
    const before = await stored(ada.user)
    const elapsed = stopwatch()
    let answer: Answer | undefined

    await meeting.sql.begin(async sql => {
      await middleOf(action, ada)(sql)
      answer = await ada[action]()
    })

    expect(elapsed()).toBeLessThan(answerMax)
    expect(answer).toMatchObject({ status: 503, body: { code: 'unavailable' } })
    await until(async () => (await meeting.waiting()).length === 0)
    expect(await stored(ada.user)).toEqual(before)
  })

  test('transactions that wait leave connections to everything else', async () => {
    const users = await Promise.all(Array.from({ length: 6 }, begin))
    const bob = await api.user()
    const slow: number[] = []

    await meeting.sql.begin(async sql => {
      for (const { user } of users) await versionsOf(user)(sql)
      const waiting = users.map(({ batch }) => batch())
      await meeting.untilWaiting()
      for (let i = 0; i < 20; i++) {
        const elapsed = stopwatch()
        expect((await api.post('/tasks', { token: bob.token, json: { title: 'his' } })).status).toBe(201)
        slow.push(elapsed())
      }
      const answers = await Promise.all(waiting)
      expect(answers.map(({ status }) => status)).toEqual(Array(6).fill(503))
    })

    expect(Math.max(...slow)).toBeLessThan(answerMax)
    for (const { user } of users) expect((await stored(user)).tasks).toHaveLength(2)
  }, 15_000)
})

describe('a commit whose answer is lost', () => {
  let api: Service
  let sql: Meeting['sql']
  let meeting: Meeting
  beforeAll(async () => {
    const own = await server.createDatabase('lost_commits')
    await execute(server.url, 'alter database lost_commits set synchronous_commit = on')
    api = await startService('postgres', { DATABASE_URL: own })
    meeting = createMeeting(own)
    sql = meeting.sql
  }, 60_000)
  afterAll(async () => {
    await meeting?.close()
    await api?.stop()
  })

  /** Commits of the service wait for a standby that does not exist: they are done, and not answered. */
  async function withoutAnswers(work: () => Promise<void>) {
    const setting = async (value: string) => {
      await sql.unsafe(`alter system set synchronous_standby_names = '${value}'`)
      await sql`select pg_reload_conf()`
    }
    const isAnyWaiting = async () => {
      const [row] =
        await sql`select exists (select from pg_stat_activity where wait_event = 'SyncRep') as found`
      return row!.found
    }
    await setting('none_such')
    try {
      // It is in force once the checkpointer has read it, too: until then a commit waits for no one.
      await until(() => {
        void sql`select pg_logical_emit_message(true, '', '')`.execute()
        return isAnyWaiting()
      })
      await work()
    } finally {
      await setting('')
    }
  }

  test('is a 503 in time, and the batch is there as a whole', async () => {
    const ada = await api.user()
    const task = await api.task(ada)
    const operations = [
      { op: 'create', task: { title: 'new' } },
      { op: 'update', id: task.id, task: { title: 'changed' } },
    ]
    const send = () => api.post('/tasks/batch', { token: ada.token, json: { operations } })
    let answer: Answer | undefined
    let milliseconds = 0

    await withoutAnswers(async () => {
      const elapsed = stopwatch()
      answer = await send()
      milliseconds = elapsed()
    })

    expect(milliseconds).toBeLessThan(answerMax)
    expect(answer).toMatchObject({ status: 503, body: { code: 'unavailable' } })
    const titles = async () =>
      (await api.get('/tasks', { token: ada.token })).body.map((t: { title: string }) => t.title)
    await until(async () => (await titles()).length === 2)
    expect(await titles()).toEqual(['new', 'changed'])
    expect((await send()).status).toBe(200)
  }, 15_000)
})
