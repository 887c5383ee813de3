import { describe, expect, spyOn, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { DatabaseSettings } from '../src/config/config.ts'
import type { Driver } from '../src/db/driver.ts'
import { createDb } from '../src/db/drizzle.ts'
import { untilUnlocked } from '../src/db/lock-wait.ts'
import { migrate, migrationState, migrations } from '../src/db/migrator.ts'
import { openDriver } from '../src/db/open-driver.ts'
import { isOutage } from '../src/db/pg-error.ts'
import type { UserId } from '../src/lib/user-id.ts'
import { createTaskService } from '../src/modules/tasks/service.ts'
import { isAway } from '../src/server/start.ts'
import { executablePath, untilReady } from './support/executable.ts'
import { startFaultProxy } from './support/fault-proxy.ts'
import { client, type DatabaseKind } from './support/harness.ts'
import { outcomeOf } from './support/outcome.ts'
import { startPostgresServer } from './support/postgres-server.ts'
import { addEmptyEmbeddedDatabase, emptyDatabase, type PrivateDatabase } from './support/template.ts'
import { until } from './support/until.ts'

const allTags = migrations.map(({ tag }) => tag)
const program = await executablePath()

/** An empty database of this kind, and the environment that names it; gone when the work is done. */
async function withEmptyDatabase(
  kind: DatabaseKind,
  work: (settings: DatabaseSettings, env: Record<string, string>) => Promise<void>,
) {
  const dataDir = mkdtempSync(join(tmpdir(), 'todo-api-migrate-'))
  let database: PrivateDatabase | undefined
  try {
    if (kind === 'postgres') database = await emptyDatabase()
    else await addEmptyEmbeddedDatabase(dataDir)
    const settings: DatabaseSettings = database
      ? { kind: 'postgres', url: database.url, poolSize: 2, prepare: true }
      : { kind: 'embedded', dataDir }
    await work(settings, { DATA_DIR: dataDir, ...(database && { DATABASE_URL: database.url }) })
  } finally {
    await database?.drop()
    rmSync(dataDir, { recursive: true, force: true })
  }
}

async function withDriver<T>(settings: DatabaseSettings, work: (driver: Driver) => Promise<T>): Promise<T> {
  const driver = await openDriver(settings)
  try {
    return await work(driver)
  } finally {
    await driver.close()
  }
}

/** Starts the program. */
function start(args: string[], env: Record<string, string>, stdin = '') {
  return Bun.spawn([program, ...args], {
    cwd: tmpdir(),
    env: { PATH: process.env.PATH ?? '', TMPDIR: tmpdir(), PORT: '0', ENVIRONMENT: 'test', ...env },
    stdin: Buffer.from(stdin),
    stdout: 'pipe',
    stderr: 'pipe',
    timeout: 60_000,
  })
}

/** Runs it to its end. */
const run = (...command: Parameters<typeof start>) => outcomeOf(start(...command))

const journal = 'select created_at::text, hash from drizzle.__drizzle_migrations order by created_at'
const tables = "select count(*)::int from information_schema.tables where table_schema = 'public'"

for (const kind of ['postgres', 'embedded'] as const) {
  describe(`migrations (${kind})`, () => {
    test(
      'are applied once, in order, as Drizzle’s own journal has it',
      () =>
        withEmptyDatabase(kind, settings =>
          withDriver(settings, async driver => {
            expect(await migrationState(driver)).toEqual({ pending: allTags, newer: 0 })
            expect(await migrate(driver, [])).toEqual(allTags)
            expect(await migrate(driver, [])).toEqual([])
            expect(await migrationState(driver)).toEqual({ pending: [], newer: 0 })
            expect(await driver.query(journal, [])).toEqual(
              migrations.map(({ when, hash }) => [String(when), hash]),
            )
          }),
        ),
      60_000,
    )

    test(
      'one that fails leaves nothing half-done, and the ones before it stay',
      () =>
        withEmptyDatabase(kind, settings =>
          withDriver(settings, async driver => {
            const when = migrations.at(-1)!.when + 1
            const sql = 'create table half_done (id int); insert into half_done values (1); select 1 / 0'
            const broken = [...migrations, { tag: '9999_broken', when, hash: 'x', sql }]

            await expect(migrate(driver, [], broken)).rejects.toThrow('9999_broken')

            expect(await driver.query("select to_regclass('half_done')", [])).toEqual([[null]])
            expect((await migrationState(driver, broken)).pending).toEqual(['9999_broken'])
            // Corrected, it goes on where it was.
            const corrected = broken.map(migration => ({
              ...migration,
              sql: migration.sql.replace('1 / 0', '1'),
            }))
            expect(await migrate(driver, [], corrected)).toEqual(['9999_broken'])
          }),
        ),
      60_000,
    )

    test(
      'a later one that was merged late is applied, too',
      () =>
        withEmptyDatabase(kind, settings =>
          withDriver(settings, async driver => {
            const [first, ...others] = migrations
            const late = {
              tag: '0000_late',
              when: first!.when + 1,
              hash: 'x',
              sql: 'create table late (id int)',
            }
            await migrate(driver, [], migrations)

            expect(await migrate(driver, [], [first!, late, ...others])).toEqual(['0000_late'])
          }),
        ),
      60_000,
    )

    test(
      'the command applies them and says which; --status only looks',
      () =>
        withEmptyDatabase(kind, async (_, env) => {
          const before = await run(['migrate', '--status'], env)
          const applied = await run(['migrate'], env)
          const after = await run(['migrate', '--status'], env)

          expect([before.exitCode, applied.exitCode, after.exitCode]).toEqual([1, 0, 0])
          for (const tag of allTags) {
            expect(before.stderr).toContain(`pending ${tag}`)
            expect(applied.stderr).toContain(`applied ${tag}`)
          }
          expect(after.stderr).toBe('up to date\n')
          expect(before.stdout + applied.stdout + after.stdout).toBe('')
        }),
      60_000,
    )

    test(
      'of a newer program: this one goes on and says so, unless one of them dropped what it reads',
      () =>
        withEmptyDatabase(kind, async (settings, env) => {
          const secret = { SECRET_KEY: 'x'.repeat(40) }
          const when = migrations.at(-1)!.when + 1
          const expand = { tag: '9998_expand', when, hash: 'x', sql: 'create table later (id int)' }
          await withDriver(settings, async driver => {
            await migrate(driver, [], [...migrations, expand])
            expect(await migrationState(driver)).toEqual({ pending: [], newer: 1 })
          })
          const child = start(['serve'], { ...env, ...secret })
          try {
            await lineOf(child, /"level":"warn".*migrated by a newer todo-api/)
          } finally {
            child.kill()
            await child.exited
          }

          const sql = "comment on table drizzle.__drizzle_migrations is 'needs 9999_contract'"
          const contract = { tag: '9999_contract', when: when + 1, hash: 'x', sql }
          const newer = [...migrations, expand, contract]
          await withDriver(settings, async driver => {
            expect(await migrate(driver, [], newer)).toEqual(['9999_contract'])
            expect(await migrate(driver, [], newer)).toEqual([])
          })
          for (const command of [['serve'], ['migrate'], ['doctor']]) {
            const { exitCode, stdout, stderr } = await run(command, { ...env, ...secret })
            expect([command, exitCode]).toEqual([command, 1])
            expect(stdout + stderr).toContain(
              'needs a todo-api that has the migration 9999_contract: upgrade',
            )
          }
        }),
      60_000,
    )

    test(
      'a failed one ends the program with 1, names itself, and changes nothing',
      () =>
        withEmptyDatabase(kind, async (settings, env) => {
          // In the way of the first migration.
          await withDriver(
            settings,
            async driver => void (await driver.query('create table users (geheim text)', [])),
          )

          for (const command of ['migrate', 'serve']) {
            const { exitCode, stderr } = await run([command], env)
            expect([command, exitCode]).toEqual([command, 1])
            expect(stderr).toContain(`Migration ${allTags[0]} failed`)
            expect(stderr.trim().split('\n')).toHaveLength(1)
          }
          await withDriver(settings, async driver => {
            expect(await driver.query(tables, [])).toEqual([[1]])
            expect(await migrationState(driver)).toEqual({ pending: allTags, newer: 0 })
          })
        }),
      60_000,
    )
  })
}

describe.each(['postgres', 'embedded'] as const)('a database of before the first release (%s)', kind => {
  const fixture = (name: string) => readFileSync(join(import.meta.dir, 'fixtures', name), 'utf8')
  const eight = fixture('eight-migrations.sql')
  /** What the program of that time exported. */
  const exported = fixture('eight-migrations.jsonl')

  test(
    'is left alone, and says in one line how its content comes over: by export and import',
    () =>
      withEmptyDatabase(kind, async (old, env) => {
        await withDriver(old, driver =>
          driver.dedicatedConnection(async connection => void (await connection.execute(eight))),
        )

        const commands = [['migrate'], ['migrate', '--status'], ['serve'], ['import', '-'], ['export', '-']]
        for (const command of commands) {
          const { exitCode, stderr } = await run(command, env)
          expect([command, exitCode]).toEqual([command, 1])
          expect(stderr).toMatch(/^this database is from before the first release.*todo-api export FILE.*\n$/)
        }
        await withDriver(old, async driver => {
          expect(await driver.query('select count(*)::int from task_counters', [])).toEqual([[0]])
        })
      }),
    60_000,
  )

  test(
    'has an export that is imported whole',
    () =>
      withEmptyDatabase(kind, async (_, env) => {
        const { exitCode, stderr } = await run(['import', '-'], env, exported)

        expect([exitCode, stderr]).toEqual([
          0,
          expect.stringContaining(
            'added 1 users, 2 tasks, 1 notes of deletions; 0 were here already; 0 skipped',
          ),
        ])
        // And more: fields that the format of that time did not have.
        expect(content((await run(['export', '-'], env)).stdout)).toMatchObject(content(exported))
      }),
    60_000,
  )

  /** An export without its first line, which holds the time, and without versions, which every database assigns itself. */
  const content = (text: string) => {
    const lines = text.trim().split('\n').slice(1)
    const versions = { version: 0, last_version: 0, seq: 0, pruned_through: 0 }
    return lines.map(line => ({ ...JSON.parse(line), ...versions }))
  }
})

/** Lets a role serve, but not migrate: as docs/upgrade.md says. */
async function grantRows(driver: Driver, role: string) {
  for (const right of [
    'usage on schema drizzle',
    'select on drizzle.__drizzle_migrations',
    'select, insert, update, delete on all tables in schema public',
  ])
    await driver.query(`grant ${right} to ${role}`, [])
}

test(
  'a role with rights on the rows alone serves a database that is up to date, and migrates none',
  () =>
    withEmptyDatabase('postgres', async (settings, env) => {
      const role = `rows_only_${crypto.randomUUID().slice(0, 8)}`
      const url = new URL(env.DATABASE_URL!)
      Object.assign(url, { username: role, password: 'only-rows' })
      const rowsOnly = { DATABASE_URL: url.href, SECRET_KEY: 'x'.repeat(40) }
      await withDriver(settings, async driver => {
        await driver.query(`create role ${role} login password 'only-rows'`, [])
        try {
          const refused = await run(['migrate'], rowsOnly)
          expect([refused.exitCode, refused.stderr]).toEqual([
            1,
            expect.stringMatching(/^the database says: permission denied .*\n$/),
          ])

          await migrate(driver, [])
          await grantRows(driver, role)
          expect(await run(['migrate'], rowsOnly)).toMatchObject({ exitCode: 0, stderr: 'up to date\n' })
          const child = start(['serve'], rowsOnly)
          try {
            const address = await urlOf(child)
            await untilReady(client(address))
            const api = client(address)
            const ada = await api.user()
            expect(await api.task(ada)).toMatchObject({ version: 1 })
          } finally {
            child.kill()
            await child.exited
          }
        } finally {
          await driver.query(`drop owned by ${role}`, [])
          await driver.query(`drop role ${role}`, [])
        }
      })
    }),
  60_000,
)

test(
  'the purge erases no one whose account it cannot see, and doctor says why it cannot',
  () =>
    withEmptyDatabase('postgres', (settings, env) =>
      withDriver(settings, async driver => {
        await migrate(driver, [])
        await driver.query(
          `with ada as (
             insert into users (id, email, normalized_email, password_hash)
             values (gen_random_uuid(), 'ada@example.com', 'ada@example.com', 'x') returning id),
           versions as (insert into user_versions (user_id, last_version) select id, 1 from ada)
           insert into tasks (id, user_id, title, version) select gen_random_uuid(), id, 'kept', 1 from ada`,
          [],
        )
        const role = `sees_little_${crypto.randomUUID().slice(0, 8)}`
        const url = new URL(env.DATABASE_URL!)
        Object.assign(url, { username: role, password: 'x' })
        await driver.query(`create role ${role} login password 'x'`, [])
        await grantRows(driver, role)
        /** What is left after a purge by that role, and what it logs. */
        const purge = () =>
          withDriver({ ...settings, url: url.href } as DatabaseSettings, async limited => {
            const lines: string[] = []
            const log = { error: (message: string) => void lines.push(message) }
            await createTaskService({ db: createDb(limited), secretKey: 'x', log }).purge()
            return [...(await driver.query('select count(*)::int from tasks', []))[0]!, ...lines]
          })
        const unseen = 'deleted accounts cannot be told from hidden ones: todo-api doctor says why'
        const asRole = { ...env, DATABASE_URL: url.href, SECRET_KEY: 'x'.repeat(40) }
        try {
          await driver.query('alter table users enable row level security', [])
          expect(await purge()).toEqual([1, unseen])
          expect((await run(['doctor'], asRole)).stdout).toContain('row-level security hides rows of users')
          await driver.query('alter table users disable row level security', [])

          // A schema that is named as the role comes first.
          await driver.query(`create schema ${role}`, [])
          await driver.query(`create table ${role}.users (id uuid)`, [])
          await driver.query(`grant usage on schema ${role} to ${role}`, [])
          await driver.query(`grant select on ${role}.users to ${role}`, [])
          expect(await purge()).toEqual([1, unseen])
          expect((await run(['migrate'], asRole)).stderr).toContain('behind those of another program')
          await driver.query(`drop schema ${role} cascade`, [])

          expect(await purge()).toEqual([1])
          await driver.query('delete from users', [])
          expect(await purge()).toEqual([0])
        } finally {
          await driver.query(`drop owned by ${role}`, [])
          await driver.query(`drop role ${role}`, [])
        }
      }),
    ),
  60_000,
)

test('until all migrations have run, a task is created or refused as in an outage', () =>
  withEmptyDatabase('postgres', settings =>
    withDriver(settings, async driver => {
      const tasks = createTaskService({ db: createDb(driver), secretKey: 'x', log: { error() {} } })
      for (const [i, { tag }] of migrations.entries()) {
        await migrate(driver, [], migrations.slice(0, i + 1))
        const id = crypto.randomUUID() as UserId
        await driver.query('insert into user_versions (user_id) values ($1)', [id])
        const outcome = await tasks.create(id, { title: 'x' }).then(() => 'created', isOutage)
        expect([tag, outcome === 'created' || outcome]).toEqual([tag, true])
      }
    }),
  ))

test(
  'the tables are in the first schema of the search path, and a service that does not see them says so',
  () =>
    withEmptyDatabase('postgres', settings =>
      withDriver(settings, async driver => {
        if (settings.kind === 'embedded') return
        await driver.query('create schema mine', [])
        const url = new URL(settings.url)
        url.searchParams.set('search_path', 'mine,public')
        const child = start(['serve'], { DATABASE_URL: url.href, SECRET_KEY: 'x'.repeat(40) })
        try {
          const address = await urlOf(child)
          await untilReady(client(address))
          const api = client(address)
          const ada = await api.user()
          const parent = await api.task(ada)
          expect(await api.task(ada, { parent_id: parent.id })).toMatchObject({ version: 2 })
        } finally {
          child.kill()
          await child.exited
        }

        expect(await driver.query(tables, [])).toEqual([[0]])
        await expect(migrationState(driver)).rejects.toThrow('in no schema of the search_path')
        const served = await run(['serve'], { DATABASE_URL: settings.url, SECRET_KEY: 'x'.repeat(40) })
        expect([served.exitCode, served.stderr]).toEqual([1, expect.stringContaining('search_path')])
      }),
    ),
  60_000,
)

test.each(['LATIN1', 'SQL_ASCII'])(
  'a database in %s is not migrated: it would refuse or miscount texts',
  encoding =>
    withEmptyDatabase('postgres', (settings, env) =>
      withDriver(settings, async driver => {
        const url = new URL(env.DATABASE_URL!)
        url.pathname += `_${encoding.toLowerCase()}`
        const name = url.pathname.slice(1)
        await driver.query(`create database ${name} encoding '${encoding}' locale 'C' template template0`, [])
        for (const command of ['migrate', 'serve']) {
          const { exitCode, stderr } = await run([command], {
            DATABASE_URL: url.href,
            SECRET_KEY: 'x'.repeat(40),
          })
          expect([exitCode, stderr]).toEqual([
            1,
            expect.stringMatching(new RegExp(`^the database is in ${encoding}, .*encoding 'UTF8'.*\n$`)),
          ])
        }
        await driver.query(`drop database ${name} with (force)`, [])
      }),
    ),
  60_000,
)

test(
  'a migration may take longer than the session lets a statement, and keeps no locks when its process is gone, as behind a proxy that drops our settings',
  () =>
    withEmptyDatabase('postgres', settings =>
      withDriver(settings, async driver => {
        const hasty: Driver = {
          ...driver,
          dedicatedConnection: work =>
            driver.dedicatedConnection(async connection => {
              await connection.execute(
                'set statement_timeout = 50; set idle_in_transaction_session_timeout = 0',
              )
              return work(connection)
            }),
        }
        const when = migrations.at(-1)!.when + 1
        const sql = `select pg_sleep(0.2);
          create table seen as select current_setting('idle_in_transaction_session_timeout') as limit_of_idle`
        const slow = { tag: '9999_slow', when, hash: 'x', sql }

        expect(await migrate(hasty, [], [...migrations, slow])).toEqual([...allTags, slow.tag])
        expect(await driver.query('select limit_of_idle from seen', [])).toEqual([['10s']])
      }),
    ),
  60_000,
)

test('one whose connection is lost has not failed: a service waits, and applies it later', () =>
  withEmptyDatabase('postgres', (settings, { DATABASE_URL }) =>
    withDriver(settings, async direct => {
      const proxy = await startFaultProxy(Number(new URL(DATABASE_URL!).port))
      const driver = await openDriver({ ...settings, url: proxy.through(DATABASE_URL!) } as DatabaseSettings)
      const slow = { tag: '0000_slow', when: 1, hash: 'x', sql: 'select pg_sleep(60)' }
      const failure = migrate(driver, [], [slow]).catch(error => error)
      const isAsleep = `select true from pg_stat_activity where datname = current_database() and query = '${slow.sql}'`
      await until(async () => (await direct.query(isAsleep, [])).length === 1)
      proxy.drop()

      expect(isAway(await failure)).toBe(true)
      await driver.close()
      await proxy.stop()
    }),
  ))

test(
  'a copy that vanishes in the middle of one keeps its locks for ten seconds at most',
  () =>
    withEmptyDatabase('postgres', (settings, { DATABASE_URL }) =>
      withDriver(settings, async direct => {
        const proxy = await startFaultProxy(Number(new URL(DATABASE_URL!).port))
        const driver = await openDriver({
          ...settings,
          url: proxy.through(DATABASE_URL!),
        } as DatabaseSettings)
        const sql = 'create table held (id int); --> statement-breakpoint\nselect pg_sleep(0.2)'
        const failure = migrate(driver, [], [{ tag: '0000_half', when: 1, hash: 'x', sql }]).catch(
          error => error,
        )
        const held = `select true from pg_locks join pg_database on oid = database
        where datname = current_database() and locktype = 'advisory'`
        const isHeld = async () => (await direct.query(held, [])).length > 0
        await until(isHeld)
        proxy.flow.losesAnswers = true

        await until(async () => !(await isHeld()), 12)

        proxy.drop()
        expect(isAway(await failure)).toBe(true)
        await driver.close()
        await proxy.stop()
      }),
    ),
  30_000,
)

describe('many copies', () => {
  test(
    'started at once on an empty PostgreSQL all come up, and each migration is applied once',
    () =>
      withEmptyDatabase('postgres', async (settings, env) => {
        const copies = Array.from({ length: 5 }, () =>
          start(['serve'], { ...env, SECRET_KEY: 'x'.repeat(40) }),
        )
        try {
          const urls = await Promise.all(copies.map(urlOf))
          await Promise.all(urls.map(url => untilReady(client(url))))

          await withDriver(settings, async driver => {
            expect(await driver.query(journal, [])).toHaveLength(migrations.length)
          })
        } finally {
          for (const copy of copies) copy.kill()
          await Promise.all(copies.map(copy => copy.exited))
        }
        expect(copies.map(copy => copy.exitCode)).toEqual(Array(5).fill(0))
      }),
    60_000,
  )

  test(
    'of the command do the same, forty at once in one process',
    () =>
      withEmptyDatabase('postgres', async settings => {
        const drivers = await Promise.all(Array.from({ length: 40 }, () => openDriver(settings)))

        const applied = await Promise.all(drivers.map(driver => migrate(driver, [])))
        const recorded = await drivers[0]!.query(journal, [])
        await Promise.all(drivers.map(driver => driver.close()))

        expect(applied.flat().sort()).toEqual([...allTags].sort())
        expect(recorded).toHaveLength(migrations.length)
      }),
    60_000,
  )
})

test(
  'while a migration is pending the service is alive, not ready, and says 503',
  () =>
    withEmptyDatabase('postgres', async (settings, env) => {
      // Another process is at it: it holds the lock that `migrate` waits for.
      const own = await openDriver(settings)
      let release = () => {}
      const held = new Promise<void>(resolve => {
        release = resolve
      })
      let locked = () => {}
      const isLocked = new Promise<void>(resolve => {
        locked = resolve
      })
      const holding = own.dedicatedConnection(async connection => {
        await connection.execute('begin; select pg_advisory_xact_lock(8389754676633104489)')
        locked()
        await held
        await connection.execute('commit')
      })
      await isLocked
      const child = start(['serve'], { ...env, SECRET_KEY: 'x'.repeat(40) })
      try {
        const url = await urlOf(child)
        const api = client(url)
        const live = await api.get('/health/live')
        const waiting = await api.get('/health/ready')
        const login = await api.post('/auth/login', { json: { username: 'a', password: 'b' } })
        release()
        await holding

        expect([live.status, live.body]).toEqual([200, { status: 'healthy' }])
        expect(waiting.status).toBe(503)
        expect(JSON.stringify(waiting.body)).toContain('migrations are pending')
        expect(login.status).toBe(503)
        expect(login.headers.get('retry-after')).toMatch(/^\d+$/)
        await untilReady(client(url))
      } finally {
        release()
        child.kill()
        await child.exited
        await own.close()
      }
    }),
  60_000,
)

test(
  'one that waits for a reader makes no request wait for it: it gives up at once, and is tried again',
  () =>
    withEmptyDatabase('postgres', (settings, env) =>
      withDriver(settings, async driver => {
        // The last ones are for tables that are in use.
        await migrate(driver, [], migrations.slice(0, 5))
        const child = start(['serve'], { ...env, SECRET_KEY: 'x'.repeat(40) })
        try {
          const address = await driver.dedicatedConnection(async reader => {
            await reader.execute('begin; lock table tasks in access share mode')
            const isWaiting = `select true from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
            await until(async () => (await driver.query(isWaiting, [])).length === 1)

            expect(await driver.query('select count(*) from tasks', [])).toEqual([[0]])
            const pattern = /"url":"(.+?)\/"(?:.|\n)*"waiting for a lock: .*55P03/
            return (await lineOf(child, pattern))[1]!
          })
          await untilReady(client(address))
        } finally {
          child.kill()
          await child.exited
        }
      }),
    ),
  60_000,
)

test(
  'a command that waits for a reader says so, and goes on afterwards',
  () =>
    withEmptyDatabase('postgres', (settings, env) =>
      withDriver(settings, async driver => {
        await migrate(driver, [], migrations.slice(0, 5))
        const [one, other] = await driver.dedicatedConnection(async reader => {
          await reader.execute('begin; lock table tasks in access share mode')
          const started = [
            start(['migrate'], env),
            start(['user', 'create', 'ada@x.io'], env, 'correct horse'),
          ]
          const outputs = started.map(child => readOn(child.stderr))
          await until(() => outputs.every(({ text }) => text.startsWith('waiting for a lock: ')))
          return outputs
        })

        await Promise.all([one!.ended, other!.ended])
        expect(one!.text).toEndWith('up to date\n')
        expect(other!.text).toEndWith('created user ada@x.io\n')
      }),
    ),
  60_000,
)

/** What a program has written so far. */
function readOn(stream: ReadableStream<Uint8Array>) {
  const read = async () => {
    for await (const chunk of stream) output.text += new TextDecoder().decode(chunk)
  }
  const output = { text: '', ended: Promise.resolve() }
  output.ended = read()
  return output
}

test('an autovacuum is cancelled by a migration that it is in the way of, as by any session', async () => {
  const server = await startPostgresServer({
    parameters: [
      'autovacuum_naptime=1',
      // A page at a time: it takes minutes.
      'autovacuum_vacuum_cost_delay=100',
      'autovacuum_vacuum_cost_limit=1',
      'deadlock_timeout=300ms',
    ],
  })
  const url = new URL(server.url)
  const open = () => openDriver({ kind: 'postgres', url: url.href, poolSize: 1, prepare: true })
  try {
    // A role without the right to see what other sessions do.
    await using admin = await open()
    await admin.query("create role plain login password 'x'", [])
    await admin.query('create database theirs owner plain', [])
    Object.assign(url, { username: 'plain', password: 'x', pathname: '/theirs' })
    await using driver = await open()
    await driver.query('create table large (filler text)', [])
    await driver.query("insert into large select repeat('x', 1000) from generate_series(1, 4000)", [])
    const isVacuumed =
      "select 1 from pg_locks where relation = 'large'::regclass and mode like 'ShareUpdate%'"
    await until(async () => (await driver.query(isVacuumed, [])).length === 1)

    const change = { tag: '0000_change', when: 1, hash: 'x', sql: 'alter table large add column note text' }
    expect(await migrate(driver, [], [change])).toEqual([change.tag])
  } finally {
    await server.close()
  }
}, 30_000)

test('what waits for a lock is tried every two seconds for as long as it takes, and says so each minute', async () => {
  const pauses: unknown[] = []
  const clock = spyOn(Bun, 'sleep').mockImplementation(async pause => void pauses.push(pause))
  const failed = (code: string) => Object.assign(new Error('a failure'), { code })
  const locked = failed('55P03')
  const said: unknown[] = []
  /** Beside an autovacuum the first of each minute waits longer. */
  const waits: string[] = []
  const work = async (lockWait: string) => {
    if (waits.push(lockWait) < 100) throw locked
    return 'done'
  }
  const result = await untilUnlocked(work, error => said.push(error))
  const other = failed('40P01')
  await expect(untilUnlocked(() => Promise.reject(other))).rejects.toBe(other)
  clock.mockRestore()

  expect([result, said]).toEqual(['done', Array(4).fill(locked)])
  expect([...waits.keys()].filter(i => waits[i] !== waits[1])).toEqual([0, 30, 60, 90])
  expect(pauses).toEqual(Array(99).fill(2000))
})

/** Where a started program listens, from its log. */
const urlOf = async (child: ReturnType<typeof start>) => (await lineOf(child, /"url":"([^"]+)\/"/))[1]!

/** Reads what a program writes until a line fits. */
async function lineOf(child: ReturnType<typeof start>, pattern: RegExp): Promise<RegExpExecArray> {
  let text = ''
  for await (const chunk of child.stdout as unknown as AsyncIterable<Uint8Array>) {
    text += new TextDecoder().decode(chunk)
    const match = pattern.exec(text)
    if (match) return match
  }
  throw new Error(
    `it wrote no ${pattern}: ${text}${await new Response(child.stderr as ReadableStream).text()}`,
  )
}
