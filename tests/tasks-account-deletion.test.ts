import { describe, expect, test } from 'bun:test'
import { patiently } from '../src/cli/patiently.ts'
import { addRows } from '../src/cli/transfer/bulk-insert.ts'
import { createDb } from '../src/db/drizzle.ts'
import { eraseUser } from '../src/modules/tasks/erasure.ts'
import { onBothDatabases, type Service, type User } from './support/harness.ts'
import { serviceWithMeetings } from './support/meet.ts'
import { stopwatch } from './support/stopwatch.ts'
import { serviceOn } from './support/task-service.ts'
import { until } from './support/until.ts'

/** Tasks in the trash of a user. */
async function fill(api: Service, { id }: User, count: number) {
  await api.sql(
    `insert into tasks (id, user_id, title, version, deleted_at)
     select gen_random_uuid(), $1, 'old', n, now() from generate_series(1, ${count}) n`,
    [id],
  )
  await api.sql('update user_versions set last_version = $1 where user_id = $2', [count, id])
}

/** What the database holds of a user: tasks, tombstones, counters, accounts. */
async function rowsOf(api: Service, { id }: User): Promise<number[]> {
  const counts = ['tasks', 'task_tombstones', 'user_versions'].map(
    table => `(select count(*) from ${table} where user_id = $1)`,
  )
  const [row] = await api.sql(`select ${counts}, (select count(*) from users where id = $1)`, [id])
  return row as number[]
}

const remove = (api: Service, { token, password }: User) =>
  api.delete('/users/me', { token, json: { password } })

onBothDatabases('the deletion of an account', api => {
  test('is done although its tasks cannot be deleted now', async () => {
    const ada = await api.user()
    await api.sql('alter table task_tombstones rename to tombstones_away', [])
    const { status } = await remove(api, ada)
    await api.sql('alter table tombstones_away rename to task_tombstones', [])

    expect(status).toBe(204)
    expect(await api.sql('select 1 from users where id = $1', [ada.id])).toEqual([])
  })

  test('takes its tasks and deletions along, and those of no other user', async () => {
    const [ada, bob] = [await api.user(), await api.user()]
    for (const user of [ada, bob]) {
      await fill(api, user, 1100)
      const gone = await api.task(user)
      await api.delete(`/tasks/${gone.id}?permanent=true`, { token: user.token })
    }

    expect((await remove(api, ada)).status).toBe(204)

    // On a busy machine the last of it goes after the answer.
    await until(async () => (await rowsOf(api, ada)).every(count => count === 0))
    expect(await rowsOf(api, bob)).toEqual([1100, 1, 1, 1])
  })

  test('takes its lists and their deletions along, and those of no other user', async () => {
    const [ada, bob] = [await api.user(), await api.user()]
    for (const { token } of [ada, bob]) {
      await api.post('/lists', { token, json: { name: 'kept' } })
      const { body } = await api.post('/lists', { token, json: { name: 'deleted' } })
      await api.delete(`/lists/${body.id}`, { token })
    }
    const listsOf = async ({ id }: User) => {
      const counts = ['lists', 'list_tombstones'].map(
        table => `(select count(*) from ${table} where user_id = $1)`,
      )
      return (await api.sql(`select ${counts}`, [id]))[0]
    }

    expect((await remove(api, ada)).status).toBe(204)

    expect(await listsOf(ada)).toEqual([0, 0])
    expect(await listsOf(bob)).toEqual([1, 1])
  })

  test('that was interrupted leaves no way in, frees the address, and is ended by the purge', async () => {
    const [ada, bob] = [await api.user(), await api.user()]
    await fill(api, ada, 450)
    await fill(api, bob, 1)
    // As when the process ends right after the account was deleted.
    await api.sql('delete from users where id = $1', [ada.id])

    const login = await api.post('/auth/login', { form: { username: ada.email, password: ada.password } })
    const again = await api.user(ada.email)
    await serviceOn(api).purge()

    expect(login.status).toBe(401)
    expect((await api.get('/tasks', { token: again.token })).body).toEqual([])
    expect(await rowsOf(api, ada)).toEqual([0, 0, 0, 0])
    expect(await rowsOf(api, bob)).toEqual([1, 0, 1, 1])
    expect(await rowsOf(api, again)).toEqual([0, 0, 1, 1])

    // As when an import has brought the account back since the purge found the rest of it.
    await eraseUser(createDb(api.driver), bob.id)
    expect(await rowsOf(api, bob)).toEqual([1, 0, 1, 1])
  })
})

describe('on PostgreSQL, the deletion of an account', () => {
  const { api, meeting } = serviceWithMeetings()

  test('is answered in time whatever holds its tasks, and what is left of them goes later', async () => {
    const ada = await api.user()
    await fill(api, ada, 450)

    await meeting.sql.begin(async sql => {
      // One of the second step.
      await sql`select 1 from tasks where user_id = ${ada.id} and version = 300 for update`
      expect((await remove(api, ada)).status).toBe(204)
      expect((await api.get('/tasks', { token: ada.token })).status).toBe(401)
      const [tasks, , , accounts] = await rowsOf(api, ada)
      expect([tasks, accounts]).toEqual([250, 0])
    })
    await serviceOn(api).purge()

    expect(await rowsOf(api, ada)).toEqual([0, 0, 0, 0])
  })

  test.each(['tasks', 'task_tombstones', 'list_tombstones'])(
    'takes %s along in steps of 200',
    async table => {
      const ada = await api.user()
      const [column, of] = table === 'tasks' ? ['title', `'old'`] : ['deleted_at', 'now()']
      await api.sql(
        `insert into ${table} (id, user_id, version, ${column})
       select gen_random_uuid(), $1, n, ${of} from generate_series(1, 450) n`,
        [ada.id],
      )
      await api.sql('delete from users where id = $1', [ada.id])
      const left = async () =>
        (await api.sql(`select count(*) from ${table} where user_id = $1`, [ada.id]))[0]![0]

      // At a row of the second step it waits.
      await meeting.meet(
        sql => sql`select 1 from ${sql(table)} where user_id = ${ada.id} and version = 300 for update`,
        [() => serviceOn(api).purge()],
        async () => expect(await left()).toBe(250),
      )

      expect([await left(), ...(await rowsOf(api, ada))]).toEqual([0, 0, 0, 0, 0])
    },
  )

  /** Each step that deletes tasks takes 0.4 s. */
  async function slowDeletions() {
    await meeting.sql.unsafe(
      `create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.4); return null; end';
       create trigger slow before delete on tasks execute function slow()`,
    )
    return { [Symbol.asyncDispose]: () => meeting.sql`drop function slow() cascade`.then(() => {}) }
  }

  test('is answered after a second while many tasks are being deleted, and goes on', async () => {
    const ada = await api.user()
    await fill(api, ada, 1100)
    // Six steps, which take 2.4 s.
    await using _ = await slowDeletions()
    const [begunAt, elapsed] = [performance.now(), stopwatch()]

    expect((await remove(api, ada)).status).toBe(204)

    expect(performance.now() - begunAt).toBeGreaterThan(990)
    expect(elapsed()).toBeLessThan(1700)
    expect((await rowsOf(api, ada))[0]).toBeGreaterThan(0)
    await until(async () => (await rowsOf(api, ada)).every(count => count === 0))
  })

  test('leaves an account alone that comes back meanwhile, by an import', async () => {
    const ada = await api.user()
    await fill(api, ada, 1100)
    await using _ = await slowDeletions()
    const [hash] = await api.sql('select password_hash from users where id = $1', [ada.id])
    await remove(api, ada)
    expect((await rowsOf(api, ada))[0]).toBeGreaterThan(0)
    const user = { id: ada.id, email: ada.email, normalized_email: ada.email, password_hash: hash![0] }
    const task = { id: crypto.randomUUID(), user_id: ada.id, title: 'Back' }
    await patiently(() =>
      addRows(createDb(api.driver), [
        { table: 'user', columns: user, label: 'Ada' },
        { table: 'task', columns: task, label: 'Back' },
      ]),
    )
    await Bun.sleep(2000)

    expect(await rowsOf(api, ada)).toEqual([1, 0, 1, 1])
  })

  test('does not fail because the purge is in the trash of the same user', async () => {
    const ada = await api.user()
    await fill(api, ada, 10)

    await meeting.sql.begin(async sql => {
      // What the purge does.
      await sql`select 1 from user_versions where user_id = ${ada.id} for no key update`
      await sql`delete from tasks where user_id = ${ada.id} and version < 5`
      expect((await remove(api, ada)).status).toBe(204)
    })
    await serviceOn(api).purge()

    expect(await rowsOf(api, ada)).toEqual([0, 0, 0, 0])
  })
})
