import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { newPlace, type Place, runCommand } from './support/command.ts'
import { executablePath, startExecutable } from './support/executable.ts'
import { type DatabaseKind, startService } from './support/harness.ts'
import { execute } from './support/postgres-server.ts'
import { emptyDatabase, type PrivateDatabase } from './support/template.ts'

/** What passlib 1.7.4 wrote for `correct horse`. */
const passlibHash = '$2b$12$T.xn6dKSQZ3gXkAvTvAZJudmKrXXa2cb26eIlthPCWC.dzB4VYTaK'

const ada = '93ff4908-089d-4cc6-99b4-966c3d153f2e'
const bob = 'de5bd25c-611f-4523-adc5-e7b0293d70bb'

/** The tables as SQLModel 0.0.14 makes them for the first service. */
const referenceTables = `
  create table "user" (
    id uuid not null primary key, email varchar not null, password_hash varchar not null,
    created_at timestamp with time zone);
  create unique index ix_user_email on "user" (email);
  create table task (
    id uuid not null primary key, user_id uuid not null, title varchar not null, description varchar,
    status varchar not null, created_at timestamp with time zone, updated_at timestamp with time zone,
    constraint task_user_id_fkey foreign key (user_id) references "user" (id));
  create index ix_task_user_id on task (user_id);`

const people = `
  insert into "user" values
    ('${ada}', 'Ada@Example.com', '${passlibHash}', '2025-03-01 10:00:00.123456+00'),
    ('${bob}', 'bob@example.com', '${passlibHash}', '2025-03-02 10:00:00+00');
  insert into task values
    ('0904beec-88b2-44bc-b7a4-a316f93affd1', '${ada}', 'Second', 'Ünïcode 🎉', 'completed', '2025-03-03 10:00:00+00', '2025-03-04 10:00:00.5+00'),
    ('9c3bd0a3-0cef-4d8c-a88a-3cf20a2a41de', '${ada}', 'First', null, 'pending', '2025-03-02 10:00:00+00', '2025-03-02 10:00:00+00'),
    ('943a778f-fa0f-473d-aebb-3ac3cad95b5f', '${bob}', 'Bob’s', '', 'in_progress', '2025-03-02 10:00:00+00', '2025-03-02 10:00:00+00');`

/** A database of the first service. */
async function referenceDatabase(...statements: string[]): Promise<PrivateDatabase> {
  const database = await emptyDatabase()
  for (const statement of [referenceTables, ...statements]) await execute(database.url, statement)
  return database
}

const rowsOf = (text: string) => text.trim().split('\n').slice(1).join('\n')

describe.each(['postgres', 'embedded'] as const)('the first service’s database is taken over (%s)', kind => {
  let place: Place
  let source: PrivateDatabase

  beforeAll(async () => {
    source = await referenceDatabase(people)
    place = await newPlace(kind)
  })
  afterAll(async () => {
    await source.drop()
    await place.remove()
  })

  const takeOver = () => runCommand(['import'], { env: { ...place.env, FROM_DATABASE_URL: source.url } })

  test('people sign in with their old passwords and find their tasks, ids and times', async () => {
    const imported = await takeOver()
    expect(imported).toEqual({
      exitCode: 0,
      stdout: '',
      stderr: 'added 2 users, 3 tasks; 0 were here already; 0 skipped\n',
    })

    const api = await startService(kind, place.env)
    try {
      const login = await api.post('/auth/login', {
        form: { username: 'ada@example.COM', password: 'correct horse' },
      })
      expect(login.status).toBe(200)
      const token = login.body.access_token
      const me = await api.get('/users/me', { token })
      expect(me.body).toMatchObject({
        id: ada,
        email: 'Ada@Example.com',
        created_at: '2025-03-01T10:00:00.123456Z',
      })

      const { body: tasks } = await api.get('/tasks', { token })
      expect(tasks).toMatchObject([
        {
          id: '0904beec-88b2-44bc-b7a4-a316f93affd1',
          user_id: ada,
          title: 'Second',
          description: 'Ünïcode 🎉',
          status: 'completed',
          completed_at: '2025-03-04T10:00:00.500000Z',
          created_at: '2025-03-03T10:00:00.000000Z',
          updated_at: '2025-03-04T10:00:00.500000Z',
          version: 2,
        },
        { id: '9c3bd0a3-0cef-4d8c-a88a-3cf20a2a41de', title: 'First', completed_at: null, version: 1 },
      ])
      expect((await api.get('/tasks?q=unicode', { token })).body).toHaveLength(1)

      // What is written next gets the next number, so nobody's cursor misses it.
      expect(await api.task({ token })).toMatchObject({ version: 3 })
      expect((await api.delete(`/tasks/${tasks[1].id}?permanent=true`, { token })).status).toBe(204)
    } finally {
      await api.stop()
    }
  })

  test('a second run changes nothing, and does not bring back what was deleted for good', async () => {
    const before = await runCommand(['export'], { env: place.env })
    const again = await takeOver()

    expect(again.exitCode).toBe(0)
    expect(again.stderr).toContain('added 0 users, 0 tasks; 5 were here already; 0 skipped')
    expect(rowsOf((await runCommand(['export'], { env: place.env })).stdout)).toBe(rowsOf(before.stdout))
  })
})

test('what cannot be taken over is told, one line each, and the rest comes in', async () => {
  const source = await referenceDatabase(
    people,
    'alter table task drop constraint task_user_id_fkey',
    `insert into "user" values
      ('00000000-0000-4000-8000-000000000001', 'ADA@example.com', '${passlibHash}', '2026-01-01'),
      ('00000000-0000-4000-8000-000000000002', 'no address', '${passlibHash}', '2026-01-01'),
      ('00000000-0000-4000-8000-000000000003', 'plain@example.com', 'secret', '2026-01-01'),
      ('00000000-0000-4000-8000-000000000004', 'late@example.com', '${passlibHash}', 'infinity'),
      ('00000000-0000-4000-8000-000000000005', 'null@example.com', '${passlibHash}', null)`,
    `insert into task select ('00000000-0000-4000-8000-0000000001' || lpad(n::text, 2, '0'))::uuid, owner::uuid, title, description, status, at, at
     from (values
      (1, '${ada}', '', null, 'pending', '2026-01-01'::timestamptz),
      (2, '${ada}', '  ', null, 'pending', '2026-01-01'),
      (3, '${ada}', repeat('x', 201), null, 'pending', '2026-01-01'),
      (4, '${ada}', 'x', repeat('x', 2001), 'pending', '2026-01-01'),
      (5, '${ada}', 'x', null, 'done', '2026-01-01'),
      (6, '${ada}', 'x', null, 'pending', '-infinity'),
      (7, '${ada}', repeat('🎉', 200), null, 'pending', null),
      (8, '11111111-1111-4111-8111-111111111111', 'orphan', null, 'pending', '2026-01-01'),
      (9, '00000000-0000-4000-8000-000000000001', 'of a user who is not taken over', null, 'pending', '2026-01-01')
     ) as bad(n, owner, title, description, status, at)`,
  )
  const place = await newPlace('postgres')
  try {
    const { exitCode, stderr } = await runCommand(['import'], {
      env: { ...place.env, FROM_DATABASE_URL: source.url },
    })

    expect(exitCode).toBe(1)
    const lines = stderr.trim().split('\n')
    const about = (id: string) => lines.filter(line => line.includes(id) && line.startsWith('skipped'))
    const skipped = {
      '8000-000000000001 (ADA@example.com)': 'another account here has this e-mail address',
      '8000-000000000002': 'valid email',
      '8000-000000000003': 'no bcrypt hash',
      '8000-000000000004': 'its created_at is no moment',
      '8000-000000000101': 'at least 1 character',
      '8000-000000000102': 'not be blank',
      '8000-000000000103': 'at most 200 characters',
      '8000-000000000104': 'at most 2000 characters',
      '8000-000000000105': 'status',
      '8000-000000000106': 'its created_at is no moment',
      '8000-000000000108': 'is not here',
      '8000-000000000109': 'is not here',
    }
    for (const [id, reason] of Object.entries(skipped))
      expect(about(id)).toEqual([expect.stringContaining(reason)])
    expect(lines.filter(line => line.startsWith('skipped'))).toHaveLength(Object.keys(skipped).length)
    expect(stderr).toContain('added 3 users, 4 tasks; 0 were here already; 12 skipped')
    expect(stderr).not.toContain(passlibHash)
  } finally {
    await source.drop()
    await place.remove()
  }
})

test('a run that was killed goes on where it stopped', async () => {
  const source = await referenceDatabase(
    people,
    `insert into task select gen_random_uuid(), '${ada}', 'Task ' || n, null, 'pending', now(), now()
     from generate_series(1, 20000) n`,
  )
  const place = await newPlace('postgres')
  try {
    const env = { ...place.env, FROM_DATABASE_URL: source.url }

    const child = Bun.spawn([await executablePath(), 'import'], {
      env: { PATH: '', ...env },
      stderr: 'ignore',
    })
    const written = async () =>
      Number((await execute(place.env.DATABASE_URL!, 'select count(*) from tasks'))[0]!.count)
    while ((await written()) === 0 && child.exitCode === null) await Bun.sleep(5)
    child.kill('SIGKILL')
    await child.exited
    const before = await written()
    expect(before).toBeLessThan(20_003)

    const { stderr, exitCode } = await runCommand(['import'], { env })

    expect(exitCode).toBe(0)
    expect(stderr).toMatch(/added \d users, \d+ tasks/)
    const [row] = await execute(
      place.env.DATABASE_URL!,
      `select count(*)::int, count(distinct version)::int as numbers, max(version)::int, (select seq from task_counters where user_id = '${ada}')::int as seq
       from tasks where user_id = '${ada}'`,
    )
    expect(row).toEqual({ count: 20_002, numbers: 20_002, max: 20_002, seq: 20_002 } as never)
  } finally {
    await source.drop()
    await place.remove()
  }
})

test('a database that is something else is refused in one line', async () => {
  const source = await emptyDatabase()
  const place = await newPlace('postgres')
  try {
    const env = { ...place.env, FROM_DATABASE_URL: source.url }
    expect(await runCommand(['import'], { env })).toEqual({
      exitCode: 1,
      stdout: '',
      stderr: 'the database to import from has no tables "user" and "task" of the first service\n',
    })
  } finally {
    await source.drop()
    await place.remove()
  }
})

test('the address of the old database may come from a file, and from an argument with a warning about its password', async () => {
  const source = await referenceDatabase(people)
  const place = await newPlace('postgres')
  try {
    const file = join(place.folder, 'url')
    writeFileSync(file, `${source.url.replace('postgres:', 'postgresql+psycopg2:')}\n`)
    const fromFile = await runCommand(['import'], { env: { ...place.env, FROM_DATABASE_URL_FILE: file } })
    const fromArgument = await runCommand(['import', '--from', source.url], place)
    const fromNowhere = await runCommand(['import'], place)

    expect([fromFile.exitCode, fromArgument.exitCode, fromNowhere.exitCode]).toEqual([0, 0, 2])
    expect(fromFile.stderr).toContain('added 2 users, 3 tasks')
    expect(fromArgument.stderr).toContain('FROM_DATABASE_URL hides it')
    expect(fromArgument.stderr).toContain('added 0 users, 0 tasks; 5 were here already')
  } finally {
    await source.drop()
    await place.remove()
  }
})

/** A service with people and tasks in every state; `cursor` is where Ada's client stands. */
async function livedIn(kind: DatabaseKind, place: Place) {
  const api = await startService(kind, place.env)
  const ada = await api.user('Ada@example.com')
  const bob = await api.user('bob@example.com')
  for (const n of [1, 2, 3, 4])
    await api.task(ada, { title: `Task ${n}`, tags: ['home', 'a "b" \\c'], priority: n })
  const { body: list } = await api.get('/tasks', ada)
  await api.patch(`/tasks/${list[0].id}`, {
    ...ada,
    json: { status: 'completed', due_at: '2026-11-24T19:00:00+01:00' },
  })
  const { body: first } = await api.get('/tasks/changes', ada)
  await api.delete(`/tasks/${list[1].id}`, ada)
  await api.delete(`/tasks/${list[2].id}?permanent=true`, ada)
  await api.task(bob, { title: 'Bob’s' })
  await api.stop()
  return { ada, cursor: first.cursor as string, trashed: list[1].id as string, gone: list[2].id as string }
}

const kinds = ['postgres', 'embedded'] as const

describe.each(kinds.flatMap(from => kinds.map(to => [from, to] as const)))(
  'export from %s, import to %s',
  (from, to) => {
    const places: Place[] = []
    afterAll(async () => {
      for (const place of places) await place.remove()
    })

    test('everything arrives: passwords, trash, numbers, and the cursors of clients', async () => {
      const [old, fresh] = [await newPlace(from), await newPlace(to)]
      places.push(old, fresh)
      const { ada, cursor, trashed, gone } = await livedIn(from, old)
      const file = join(old.folder, 'todo.ndjson')

      const exported = await runCommand(['export', file], old)
      const imported = await runCommand(['import', file], fresh)
      const again = await runCommand(['import', file], fresh)
      const back = await runCommand(['export'], fresh)

      expect([exported.exitCode, imported.exitCode, again.exitCode]).toEqual([0, 0, 0])
      expect(imported.stderr).toBe(
        'added 2 users, 4 tasks, 1 notes of deleted tasks; 0 were here already; 0 skipped\n',
      )
      expect(again.stderr).toContain('added 0 users, 0 tasks; 7 were here already; 0 skipped')
      expect(rowsOf(back.stdout)).toBe(rowsOf(readFileSync(file, 'utf8')))

      const api = await startService(to, fresh.env)
      try {
        const login = await api.post('/auth/login', { form: { username: ada.email, password: ada.password } })
        expect(login.status).toBe(200)
        const token = login.body.access_token
        const { body: changes } = await api.get(`/tasks/changes?since=${cursor}`, { token })
        expect(changes.tasks).toEqual([])
        expect(changes.deleted.sort()).toEqual([trashed, gone].sort())
        expect((await api.get('/tasks/trash', { token })).body).toMatchObject([{ id: trashed }])
        expect((await api.get('/tasks?q=task', { token })).body).toHaveLength(2)
      } finally {
        await api.stop()
      }
    }, 60_000)
  },
)

describe('a file to import', () => {
  let place: Place
  let good: string[]
  beforeAll(async () => {
    place = await newPlace('postgres')
    await livedIn('postgres', place)
    good = (await runCommand(['export'], place)).stdout.trim().split('\n')
  }, 60_000)
  afterAll(() => place.remove())

  const importLines = (lines: readonly string[]) =>
    runCommand(['import', '-'], { ...place, stdin: lines.join('\n') })
  const change = (type: string, fields: object) => (line: string) =>
    line.includes(`"type":"${type}"`) ? JSON.stringify({ ...JSON.parse(line), ...fields }) : line

  test.each([
    ['no header', (lines: string[]) => lines.slice(1), 'line 1: this is no file that `export` wrote'],
    [
      'a newer format',
      (lines: string[]) => lines.map(change('header', { version: 2 })),
      'line 1: a newer program',
    ],
    ['an end that is missing', (lines: string[]) => lines.slice(0, -1), 'the file is not complete'],
    [
      'a line that is cut off',
      (lines: string[]) => [...lines.slice(0, 4), lines[4]!.slice(0, 30)],
      'line 5: this is no JSON',
    ],
    [
      'a task without a title',
      (lines: string[]) => lines.map(change('task', { title: ' ' })),
      'line 4: title: String should not be blank',
    ],
    [
      'a person with a password in the clear',
      (lines: string[]) => lines.map(change('user', { password_hash: 'x' })),
      'line 2: password_hash',
    ],
    [
      'an unknown type',
      (lines: string[]) => lines.map(change('tombstone', { type: 'note' })),
      'its type is none that this program knows',
    ],
    [
      'a moment that is none',
      (lines: string[]) => lines.map(change('task', { created_at: '2026-02-31T00:00:00Z' })),
      'line 4: created_at',
    ],
  ] as const)('with %s is refused, and the line is named', async (_, spoil, message) => {
    const { exitCode, stderr } = await importLines(spoil([...good]))

    expect(stderr).toContain(message)
    expect(exitCode).toBe(1)
    expect(stderr).not.toContain('    at ')
  })

  test('of one person holds nothing of the others', async () => {
    const { stdout } = await runCommand(['export', '--user', 'ADA@example.com'], place)
    const other = await newPlace('postgres')

    expect(stdout).not.toContain('bob')
    expect(await runCommand(['import', '-'], { ...other, stdin: stdout })).toMatchObject({ exitCode: 0 })
    expect((await runCommand(['export', '--user', 'nobody@example.com'], place)).stderr).toBe(
      'there is no user nobody@example.com\n',
    )
    await other.remove()
  })

  test('adds what is missing under new numbers where a person went on working', async () => {
    const url = place.env.DATABASE_URL!
    await execute(url, `delete from tasks where title = 'Task 1'`)
    await execute(url, `update task_counters set seq = seq + 5 where seq > 3`)
    const { stderr, exitCode } = await importLines(good)

    expect(stderr).toContain('added 0 users, 1 tasks')
    expect(exitCode).toBe(0)
    const [row] = await execute(
      url,
      `select version, seq from tasks t join task_counters c using (user_id) where title = 'Task 1'`,
    )
    expect(row!.version).toBe(row!.seq)
  })

  test('is found by searches', async () => {
    const other = await newPlace('postgres')
    await runCommand(['import', '-'], { ...other, stdin: good.join('\n') })
    const api = await startService('postgres', other.env)
    const login = await api.post('/auth/login', {
      form: { username: 'ada@example.com', password: 'correct horse' },
    })
    const found = await api.get('/tasks?q=task&sort=title&total=true', { token: login.body.access_token })
    expect(found.headers.get('x-total-count')).toBe('2')
    await api.stop()
    await other.remove()
  }, 60_000)

  test('can be read by a running service with the embedded database', async () => {
    const api = await startExecutable({ ...place.env, DATABASE_URL: '', DATA_DIR: 'data' })
    const env = { ...place.env, DATABASE_URL: '', DATA_DIR: join(api.folder, 'data') }
    const { stderr, exitCode } = await runCommand(['import', '-'], { env, stdin: good.join('\n') })
    const { stdout } = await runCommand(['export'], { env })

    expect([stderr, exitCode]).toEqual([expect.stringContaining('added 2 users, 4 tasks'), 0])
    expect(rowsOf(stdout)).toBe(good.slice(1).join('\n'))
    expect(await api.stop()).toBe(0)
  })
})
