import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { cpSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { resetSync } from '../src/cli/reset-sync.ts'
import { createDb } from '../src/db/drizzle.ts'
import { newPlace, type Place, runCommand } from './support/command.ts'
import { type Running, startExecutable, untilReady } from './support/executable.ts'
import { startService, type User } from './support/harness.ts'
import { createMeeting, versionsOf } from './support/meet.ts'
import { execute } from './support/postgres-server.ts'
import { privateDatabase } from './support/template.ts'

/** A way to lose changes: what is saved, how it comes back, and whether the service writes before `reset-sync` runs. */
interface Loss {
  kind: 'postgres' | 'embedded'
  save(place: Place): Promise<unknown>
  bringBack(place: Place): Promise<unknown>
  needsReset: boolean
}

const url = (place: Place) => place.env.DATABASE_URL!
const nameOf = (place: Place) => new URL(url(place)).pathname.slice(1)
const saved = (place: Place) => `${nameOf(place)}_saved`
const besides = (place: Place, name: string) =>
  Object.assign(new URL(url(place)), { pathname: `/${name}` }).href
const backupOf = (place: Place) => join(place.folder, 'todo.tar.gz')

/** Fails with what the command said. */
async function run(place: Place, ...args: string[]) {
  const { exitCode, stderr } = await runCommand(args, place)
  expect([exitCode, stderr]).toEqual([0, stderr])
}

const losses: Record<string, Loss> = {
  'a backup, restored': {
    kind: 'embedded',
    save: place => run(place, 'backup', backupOf(place)),
    bringBack: place => run(place, 'restore', '--force', backupOf(place)),
    needsReset: false,
  },
  'a copy of the folder, and reset-sync': {
    kind: 'embedded',
    save: async place =>
      cpSync(place.env.DATA_DIR!, join(place.folder, 'copy'), { recursive: true, filter: isNoSocket }),
    async bringBack(place) {
      rmSync(place.env.DATA_DIR!, { recursive: true })
      cpSync(join(place.folder, 'copy'), place.env.DATA_DIR!, { recursive: true })
    },
    needsReset: true,
  },
  'an older database of PostgreSQL, and reset-sync': {
    kind: 'postgres',
    save: place => execute(url(place), `create database ${saved(place)} template ${nameOf(place)}`),
    async bringBack(place) {
      const other = besides(place, saved(place))
      await execute(other, `drop database ${nameOf(place)} with (force)`)
      await execute(other, `create database ${nameOf(place)} template ${saved(place)}`)
    },
    needsReset: true,
  },
}

const isNoSocket = (path: string) => !path.endsWith('/control')

/** Everything that a client gets from a cursor on, or from nothing; the status when it is refused. */
async function sync(api: Running, { token }: User, cursor?: string) {
  const tasks = new Map<string, unknown>()
  let since = cursor
  while (true) {
    const { status, body } = await api.get(`/tasks/changes?limit=2${since ? `&since=${since}` : ''}`, {
      token,
    })
    if (status !== 200) return { status, tasks, cursor: since, code: body.code }
    for (const task of body.tasks) tasks.set(task.id, task)
    for (const id of body.deleted) tasks.delete(id)
    since = body.cursor as string
    if (!body.has_more) return { status, tasks, cursor: since, code: undefined }
  }
}

describe.each(Object.entries(losses))('%s', (_, { kind, save, bringBack, needsReset }) => {
  let place: Place
  let api: Running
  let ada: User
  let task: { id: string; version: number }
  /** What clients hold: of what was saved, and of the changes that are lost. */
  const held = { cursors: [] as string[], etags: [] as [id: string, etag: string][] }

  const start = async () => {
    api = await startExecutable({ ...place.env, LOGIN_LIMIT: '0' })
    await untilReady(api)
  }
  /** Changes the task a few times and makes others, as a client does. */
  const work = async (what: string) => {
    for (let n = 0; n < 4; n++) {
      await api.task(ada, { title: `${what} ${n}` })
      const { headers } = await api.patch(`/tasks/${task.id}`, {
        ...ada,
        json: { title: `${what}, change ${n}` },
      })
      held.etags.push([task.id, headers.get('etag')!])
      held.cursors.push((await sync(api, ada)).cursor!)
    }
  }
  const lose = async (what: string) => {
    await api.stop()
    await bringBack(place)
    await start()
    await work(what)
    if (needsReset) await run(place, 'reset-sync')
  }

  beforeAll(async () => {
    place = await newPlace(kind, { direct: true })
    await start()
    ada = await api.user('ada@example.com')
    task = await api.task(ada)
    const same = await api.task(ada)
    for (const { id, version } of [task, same]) held.etags.push([id, `"${version}"`])
    const gone = await api.task(ada)
    await api.delete(`/tasks/${gone.id}?permanent=true`, ada)
    held.cursors.push((await sync(api, ada)).cursor!)
    await api.stop()
    await save(place)
    await start()
    await work('lost')
  }, 120_000)
  afterAll(async () => {
    await api.stop()
    if (kind === 'postgres') await execute(url(place), `drop database if exists ${saved(place)} with (force)`)
    await place.remove()
  })

  test.each(['once', 'again'])(
    'cursors and ETags from before are worth nothing, also of what is as it was (%s)',
    async time => {
      const { cursors, etags } = { cursors: [...held.cursors], etags: [...held.etags] }
      await lose(time)

      const outcomes = await Promise.all(cursors.map(cursor => sync(api, ada, cursor)))
      expect(outcomes.map(({ status, code }) => [status, code])).toEqual(
        cursors.map(() => [410, 'cursor_expired']),
      )
      for (const [id, etag] of etags) {
        const read = await api.get(`/tasks/${id}`, { ...ada, headers: { 'if-none-match': etag } })
        const written = await api.patch(`/tasks/${id}`, {
          ...ada,
          json: { title: 'x' },
          headers: { 'if-match': etag },
        })
        expect([etag, read.status, written.status]).toEqual([etag, 200, 412])
      }
    },
    120_000,
  )

  test('a client that begins again gets everything, and goes on from there', async () => {
    const list = async () => (await api.get('/tasks?limit=200', ada)).body
    const everything = await sync(api, ada)
    expect([...everything.tasks.values()].sort(byId)).toEqual((await list()).sort(byId))

    const later = await api.task(ada, { title: 'later' })
    expect(Number.isSafeInteger(later.version)).toBe(true)
    expect(
      (await api.get(`/tasks/${later.id}`, { ...ada, headers: { 'if-none-match': `"${later.version}"` } }))
        .status,
    ).toBe(304)
    const rest = await sync(api, ada, everything.cursor)
    expect([rest.status, [...rest.tasks.keys()]]).toEqual([200, [later.id]])
  })
})

const byId = (a: any, b: any) => (a.id < b.id ? -1 : 1)

describe.each(['postgres', 'embedded'] as const)('reset-sync beside writers (%s)', kind => {
  test('loses no write, and doubles no number', async () => {
    const place = await newPlace(kind)
    const api = await startExecutable(place.env)
    await untilReady(api)
    const users = [await api.user(), await api.user(), await api.user()]
    for (const user of users) for (let n = 0; n < 30; n++) await api.task(user)
    const titles = new Map<string, string>()
    let isDone = false
    const writers = users.map(async (user, i) => {
      const { body } = await api.get('/tasks', user)
      for (let n = 0; !isDone; n++) {
        const { id } = body[n % body.length]
        const title = `${i} ${n}`
        const { status } = await api.patch(`/tasks/${id}`, { ...user, json: { title } })
        if (status === 200) titles.set(id, title)
      }
    })
    await run(place, 'reset-sync')
    isDone = true
    await Promise.all(writers)

    expect(titles.size).toBeGreaterThan(0)
    for (const user of users) {
      const { body } = await api.get('/tasks?limit=200', user)
      const versions = body.map((task: { version: number }) => task.version)
      expect(new Set(versions).size).toBe(30)
      expect(Math.min(...versions)).toBeGreaterThan(2 ** 32)
      for (const task of body) if (titles.has(task.id)) expect(task.title).toBe(titles.get(task.id))
      expect([...(await sync(api, user)).tasks.keys()].sort()).toEqual(
        body.map((t: { id: string }) => t.id).sort(),
      )
    }
    await api.stop()
    await place.remove()
  }, 60_000)
})

test('reset-sync tries again when a writer holds a user for longer than a statement waits, and holds no other one meanwhile', async () => {
  const database = await privateDatabase()
  const api = await startService('postgres', { DATABASE_URL: database.url })
  const meeting = createMeeting(database.directUrl)
  const ada = await api.user()
  // A step before hers.
  await execute(
    database.directUrl,
    `insert into user_versions (user_id) select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid
     from generate_series(1, 100) n`,
  )
  let reset: ReturnType<typeof resetSync> | undefined

  await meeting.sql.begin(async tx => {
    await versionsOf(ada)(tx)
    reset = resetSync(createDb(api.driver), () => {})
    reset.catch(() => {})
    await meeting.untilGivenUp()
    const [others] =
      await meeting.sql`select count(*)::int as moved from user_versions where forgotten_version > 0`
    expect(others).toEqual({ moved: 100 })
  })

  expect(await reset).toEqual({ users: 101, rows: 0 })
  await meeting.close()
  await api.stop()
  await database.drop()
})

test('reset-sync waits for writers between its steps, tries again, and assigns no version twice', async () => {
  const place = await newPlace('postgres', { direct: true })
  const meeting = createMeeting(url(place))
  // In the order in which they are moved.
  const [ada, bob] = [1, 2].map(n => `00000000-0000-4000-8000-00000000000${n}`) as [string, string]
  for (const id of [ada, bob]) {
    await execute(
      url(place),
      `insert into users (id, email, normalized_email, password_hash) values ('${id}', '${id}@x.y', '${id}@x.y', '');
       insert into user_versions (user_id, last_version) values ('${id}', 2);
       insert into lists (id, user_id, name, version) values (gen_random_uuid(), '${id}', 'a list', 1);
       insert into tasks (id, user_id, title, version) values (gen_random_uuid(), '${id}', 'a task', 2)`,
    )
  }
  const [held, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const holding = meeting.sql.begin(async tx => {
    await tx`select 1 from tasks where user_id = ${ada} for update`
    held.resolve()
    await released.promise
  })
  await held.promise
  const resetting = runCommand(['reset-sync'], place)
  await meeting.untilGivenUp()
  await meeting.sql.begin(async tx => {
    await tx`update user_versions set last_version = last_version + 1 where user_id = ${bob}`
    await tx`insert into tasks (id, user_id, title, version)
             select gen_random_uuid(), user_id, 'of a writer', last_version from user_versions where user_id = ${bob}`
    released.resolve()
    await holding
    await meeting.untilWaiting()
  })
  const { exitCode } = await resetting
  const rows = await execute(
    url(place),
    `select name, version - forgotten_version as place, last_version - forgotten_version as last
     from (select user_id, title as name, version from tasks union all select user_id, name, version from lists) rows
     join user_versions using (user_id) order by user_id, version`,
  )
  await meeting.close()
  await place.remove()

  expect(exitCode).toBe(0)
  expect(rows.map(row => Object.values(row).join(' '))).toEqual([
    ...['a list 1 2', 'a task 2 2'],
    ...['of a writer 1 3', 'a list 2 3', 'a task 3 3'],
  ])
})

test('reset-sync moves each user’s tasks and lists in their order, and says how many', async () => {
  const place = await newPlace('postgres', { direct: true })
  const users = Array.from({ length: 3 }, () => crypto.randomUUID())
  // Tasks of different users may have the same id.
  for (const [i, id] of users.entries())
    await execute(
      place.env.DATABASE_URL!,
      `with account as (
         insert into users (id, email, normalized_email, password_hash) values ('${id}', '${i}@x.y', '${i}@x.y', '')
       )
       insert into user_versions (user_id, last_version) values ('${id}', 500);
       insert into tasks (id, user_id, title, version)
       select ('00000000-0000-4000-8000-' || lpad((n * 37 % 251)::text, 12, '0'))::uuid, '${id}', n, n
       from generate_series(1, 250) n;
       insert into lists (id, user_id, name, version) values (gen_random_uuid(), '${id}', 'a', 251)`,
    )
  // Users of more than one page, in part without an account: they are numbered all the same.
  await execute(
    place.env.DATABASE_URL!,
    `insert into user_versions (user_id, last_version) select gen_random_uuid(), 5 from generate_series(1, 197);
     insert into user_versions (user_id, last_version) values (gen_random_uuid(), 3000000000000000)`,
  )
  const { stderr } = await runCommand(['reset-sync'], place)
  const [moved] = await execute(
    place.env.DATABASE_URL!,
    `select bool_and(version > forgotten_version and version <= last_version) as are_new,
            count(distinct (user_id, version))::int as versions, bool_and(place = title::int) as are_in_order
     from user_versions join (
       select user_id, version, title, row_number() over (partition by user_id order by version) as place from tasks
     ) t using (user_id)`,
  )
  const [ahead] = await execute(
    place.env.DATABASE_URL!,
    `select min(forgotten_version) > (extract(epoch from now()) - 60) * 1000000 as of_the_clock,
            max(forgotten_version) - 3000000000000000 as of_itself from user_versions`,
  )
  await place.remove()

  // Beyond any version before it, whatever the clock says.
  expect({ of_the_clock: ahead!.of_the_clock, of_itself: Number(ahead!.of_itself) }).toEqual({
    of_the_clock: true,
    of_itself: 2 ** 32,
  })
  expect({ ...moved }).toEqual({ are_new: true, versions: 750, are_in_order: true })
  expect(stderr).toBe(
    'the clients of 201 users will sync from the beginning; 753 tasks and lists have new versions\n',
  )
})
