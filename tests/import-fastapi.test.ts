import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { newPlace, type Place, runCommand } from './support/command.ts'
import { executablePath } from './support/executable.ts'
import { passlibHash } from './support/export-lines.ts'
import { startService } from './support/harness.ts'
import { execute } from './support/postgres-server.ts'
import { emptyDatabase, type PrivateDatabase } from './support/template.ts'

const ada = '93ff4908-089d-4cc6-99b4-966c3d153f2e'
const bob = 'de5bd25c-611f-4523-adc5-e7b0293d70bb'

/** The tables as SQLModel 0.0.14 makes them for the FastAPI service. */
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

const usersAndTasks = `
  insert into "user" values
    ('${ada}', 'Ada@Example.com', '${passlibHash}', '2025-03-01 10:00:00.123456+00'),
    ('${bob}', 'bob@example.com', '${passlibHash}', '2025-03-02 10:00:00+00');
  insert into task values
    ('0904beec-88b2-44bc-b7a4-a316f93affd1', '${ada}', 'Second', 'Ünïcode 🎉', 'completed', '2025-03-03 10:00:00+00', '2025-03-04 10:00:00.5+00'),
    ('9c3bd0a3-0cef-4d8c-a88a-3cf20a2a41de', '${ada}', 'First', null, 'pending', '2025-03-02 10:00:00+00', '2025-03-02 10:00:00+00'),
    ('943a778f-fa0f-473d-aebb-3ac3cad95b5f', '${bob}', 'Bob’s', '', 'in_progress', '2025-03-02 10:00:00+00', '2025-03-02 10:00:00+00');`

/** A database of the FastAPI service. */
async function referenceDatabase(...statements: string[]): Promise<PrivateDatabase> {
  const database = await emptyDatabase()
  for (const statement of [referenceTables, ...statements]) await execute(database.url, statement)
  return database
}

/** The lines of an export after its header. */
const rowsOf = (text: string) => text.trim().split('\n').slice(1)

describe.each(['postgres', 'embedded'] as const)('the FastAPI service’s database is imported (%s)', kind => {
  let place: Place
  let source: PrivateDatabase

  beforeAll(async () => {
    source = await referenceDatabase(usersAndTasks)
    place = await newPlace(kind)
  })
  afterAll(async () => {
    await source.drop()
    await place.remove()
  })

  const takeOver = () => runCommand(['import'], { env: { ...place.env, FROM_DATABASE_URL: source.url } })

  test('users sign in with their old passwords and find their tasks, ids and times', async () => {
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
        updated_at: '2025-03-01T10:00:00.123456Z',
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

      // The next change has the next version, so that no cursor misses it.
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
    expect(rowsOf((await runCommand(['export'], { env: place.env })).stdout)).toEqual(rowsOf(before.stdout))
  })
})

test('an address with spaces around it is imported without them', async () => {
  const source = await referenceDatabase(
    `insert into "user" values ('${ada}', ' Ada@example.com ', '${passlibHash}', '2025-03-01 10:00:00+00')`,
  )
  const place = await newPlace('postgres')
  await runCommand(['import', '--from', source.url], place)
  const [user] = rowsOf((await runCommand(['export'], place)).stdout)
  await source.drop()
  await place.remove()

  expect(JSON.parse(user!)).toMatchObject({ id: ada, email: 'Ada@example.com' })
})

test('rows that cannot be imported are reported, one line each, and the others are imported', async () => {
  const source = await referenceDatabase(
    usersAndTasks,
    'alter table task drop constraint task_user_id_fkey',
    // As in databases whose ids are texts.
    'alter table "user" alter id type text; alter table task alter id type text, alter user_id type text',
    `insert into "user" values
      ('number 6', 'six@example.com', '${passlibHash}', '2026-01-01'),
      ('00000000-0000-4000-8000-000000000001', 'ADA@example.com', '${passlibHash}', '2026-01-01'),
      ('00000000-0000-4000-8000-000000000002', 'no address', '${passlibHash}', '2026-01-01'),
      ('00000000-0000-4000-8000-000000000003', 'plain@example.com', 'secret', '2026-01-01'),
      ('00000000-0000-4000-8000-000000000004', 'late@example.com', '${passlibHash}', 'infinity'),
      ('00000000-0000-4000-8000-000000000005', 'null@example.com', '${passlibHash}', null)`,
    `insert into task select '00000000-0000-4000-8000-0000000001' || lpad(n::text, 2, '0'), owner, title, description, status, at, at
     from (values
      (1, '${ada}', '', null, 'pending', '2026-01-01'::timestamptz),
      (2, '${ada}', '  ', null, 'pending', '2026-01-01'),
      (3, '${ada}', repeat('x', 201), null, 'pending', '2026-01-01'),
      (4, '${ada}', 'x', repeat('x', 2001), 'pending', '2026-01-01'),
      (5, '${ada}', 'x', null, 'done', '2026-01-01'),
      (6, '${ada}', 'x', null, 'pending', '-infinity'),
      (7, '${ada}', repeat('🎉', 200), null, 'pending', null),
      (12, '${ada}', 'completed at no time', null, 'completed', null),
      (8, '11111111-1111-4111-8111-111111111111', 'orphan', null, 'pending', '2026-01-01'),
      (9, '00000000-0000-4000-8000-000000000001', 'of a user who is not imported', null, 'pending', '2026-01-01'),
      (10, 'number 6', 'x', null, 'pending', '2026-01-01')
     ) as bad(n, owner, title, description, status, at)`,
    `insert into task values ('number 11', '${ada}', 'x', null, 'pending', '2026-01-01', '2026-01-01')`,
  )
  const place = await newPlace('postgres')
  // Tasks follow when their users are there.
  await execute(
    place.env.DATABASE_URL!,
    `create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.05); return new; end';
     create trigger slow before insert on users for each row execute function slow()`,
  )
  try {
    const { exitCode, stderr } = await runCommand(['import'], {
      env: { ...place.env, FROM_DATABASE_URL: source.url },
    })

    expect(exitCode).toBe(1)
    const lines = stderr.trim().split('\n')
    const about = (id: string) => lines.filter(line => line.includes(id) && line.startsWith('skipped'))
    const skipped = {
      'user number 6 (six@example.com)': 'its id is not a UUID',
      'task number 11': 'its id is not a UUID',
      '8000-000000000110': 'its user_id is not a UUID',
      '8000-000000000001 (ADA@example.com)': 'another account here has this e-mail address',
      '8000-000000000002': 'valid email',
      '8000-000000000003': 'password_hash: String should be a bcrypt hash',
      '8000-000000000004': 'its created_at is not a moment',
      '8000-000000000101': 'at least 1 character',
      '8000-000000000102': 'not be blank',
      '8000-000000000103': 'at most 200 characters',
      '8000-000000000104': 'at most 2000 characters',
      '8000-000000000105': 'status',
      '8000-000000000106': 'its created_at is not a moment',
      '8000-000000000108': 'is not here',
      '8000-000000000109': 'is not here',
    }
    for (const [id, reason] of Object.entries(skipped))
      expect(about(id)).toEqual([expect.stringContaining(reason)])
    expect(lines.filter(line => line.startsWith('skipped'))).toHaveLength(Object.keys(skipped).length)
    expect(stderr).toContain('added 3 users, 5 tasks; 0 were here already; 15 skipped')
    expect(stderr).not.toContain(passlibHash)
  } finally {
    await source.drop()
    await place.remove()
  }
})

test('a run that was killed goes on where it stopped', async () => {
  const source = await referenceDatabase(
    usersAndTasks,
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
    expect(before).toBeGreaterThan(0)
    expect(before).toBeLessThan(20_003)

    const { stderr, exitCode } = await runCommand(['import'], { env })

    expect(exitCode).toBe(0)
    const [, added, present] = stderr.match(/added 0 users, (\d+) tasks; (\d+) were here already/) ?? []
    // A statement that had arrived when the program was killed may have ended after it.
    expect(Number(present)).toBeGreaterThanOrEqual(before + 2)
    expect(Number(added) + Number(present)).toBe(20_005)
    const [row] = await execute(
      place.env.DATABASE_URL!,
      `select count(*)::int, count(distinct version)::int as numbers, max(version)::int, (select last_version from user_versions where user_id = '${ada}')::int as last_version
       from tasks where user_id = '${ada}'`,
    )
    expect(row).toEqual({ count: 20_002, numbers: 20_002, max: 20_002, last_version: 20_002 } as never)
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
      stderr: 'the database to import from has no tables "user" and "task" of the FastAPI service\n',
    })
  } finally {
    await source.drop()
    await place.remove()
  }
})

test('the address of the old database may come from a file, and from an argument with a warning about its password', async () => {
  const source = await referenceDatabase(usersAndTasks)
  const place = await newPlace('postgres')
  try {
    const file = join(place.folder, 'url')
    writeFileSync(file, `${source.url.replace('postgres:', 'postgresql+psycopg2:')}\n`)
    const fromFile = await runCommand(['import'], { env: { ...place.env, FROM_DATABASE_URL_FILE: file } })
    const fromArgument = await runCommand(['import', '--from', source.url], place)
    const fromNowhere = await runCommand(['import'], place)

    expect([fromFile.exitCode, fromArgument.exitCode, fromNowhere.exitCode]).toEqual([0, 0, 2])
    expect(fromFile.stderr).toContain('added 2 users, 3 tasks')
    expect(fromFile.stderr).not.toContain('warning')
    expect(fromArgument.stderr).toContain('FROM_DATABASE_URL hides it')
    expect(fromArgument.stderr).toContain('added 0 users, 0 tasks; 5 were here already')
  } finally {
    await source.drop()
    await place.remove()
  }
})
