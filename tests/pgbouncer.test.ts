import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import type { Driver, Query } from '../src/db/driver.ts'
import { migrations } from '../src/db/migrator.ts'
import { openPostgres } from '../src/db/postgres/postgres.ts'
import { type Running, startExecutable, untilReady } from './support/executable.ts'
import { type Client, testSettings, type User } from './support/harness.ts'
import { type PgBouncer, pgbouncer, startPgBouncer } from './support/pgbouncer.ts'
import { execute, type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { stopwatch } from './support/stopwatch.ts'
import { auditBooks, figures, holdOpen, report, startProbes, startTraffic } from './support/traffic.ts'

const answerMax = 2500
const recoveryMax = 2000

if (!pgbouncer)
  process.stderr.write('\nNOT RUN: the tests through PgBouncer, because there is none in PATH.\n')

describe.skipIf(!pgbouncer)('through PgBouncer, which pools transactions,', () => {
  let server: PostgresServer
  let proxy: PgBouncer
  let copies: Running[] = []
  let users: User[]

  beforeAll(async () => {
    server = await startPostgresServer({ parameters: ['synchronous_commit=on'] })
    proxy = await startPgBouncer(server.url)
  }, 60_000)
  afterAll(async () => {
    await Promise.all(copies.map(copy => copy.stop()))
    await proxy?.stop()
    await server?.close()
  })

  test('five copies start at once on an empty database, and each migration is applied once', async () => {
    // Whether a setting says to prepare nothing or the service finds out by itself.
    copies = await Promise.all(['true', 'false', 'true', 'false', 'true'].map(start))
    await Promise.all(copies.map(untilReady))

    const [row] = await execute(server.url, 'select count(*)::int from drizzle.__drizzle_migrations')
    expect(row!.count).toBe(migrations.length)
    users = await Promise.all(Array.from({ length: 5 }, () => copies[0]!.user()))
    await Promise.all(copies.splice(2).map(copy => copy.stop()))
  })

  test.each([true, false])('many statements at once get their own answers (prepare: %p)', async prepare => {
    const url = proxy.through(server.url)
    const drivers = [1, 2].map(() => openPostgres({ url, poolSize: 10, prepare }))
    let asked = 0
    const wrong: unknown[] = []
    const until = performance.now() + 1000
    const ask = async (driver: Driver, text: number) => {
      while (performance.now() < until) {
        const mark = ++asked
        const rows = await driver.query(`select ${text}, $1::int`, [mark]).catch(error => [[error]])
        if (rows.length !== 1 || rows[0]![0] !== text || rows[0]![1] !== mark) wrong.push(rows)
      }
    }
    await Promise.all(drivers.flatMap(driver => Array.from({ length: 20 }, (_, text) => ask(driver, text))))
    await Promise.all(drivers.map(driver => driver.close()))

    expect(wrong).toEqual([])
    expect(asked).toBeGreaterThan(100)
  })

  test('a transaction is all or nothing, also when its backend is killed', async () => {
    const driver = openPostgres({ url: proxy.through(server.url), poolSize: 4 })
    await driver.query('create table if not exists pairs (id int, half text)', [])
    const insertBoth = (id: number, between: (query: Query) => Promise<unknown> = async () => {}) =>
      driver
        .transaction(async query => {
          await query(`insert into pairs values ($1, 'one')`, [id])
          await between(query)
          await query(`insert into pairs values ($1, 'two')`, [id])
        })
        .then(
          () => 'done',
          error => error.code,
        )
    const kill = async (query: Query) => {
      const [[pid]] = (await query('select pg_backend_pid()', [])) as [[number]]
      await execute(server.url, `select pg_terminate_backend(${pid})`)
    }
    const outcomes = await Promise.all([
      ...Array.from({ length: 20 }, (_, id) => insertBoth(id)),
      insertBoth(100, kill),
      insertBoth(101, query => query('select 1/0', [])),
    ])
    const halves = await driver.query('select id, count(*)::int from pairs group by id order by id', [])
    await driver.close()

    expect(outcomes).toEqual([...Array(20).fill('done'), 'unavailable', '22012'])
    expect(halves).toEqual(Array.from({ length: 20 }, (_, id) => [id, 2]))
  })

  test('a session that ended on one copy is refused by the other within a second', async () => {
    const [one, two] = copies as [Running, Running]
    const ada = await one.user()
    for (let i = 0; i < 20; i++) {
      expect((await me(two, ada)).status).toBe(200)
      await Bun.sleep(20)
    }
    expect(await one.post('/auth/logout', { token: ada.token })).toMatchObject({ status: 204 })
    const elapsed = stopwatch(one.process.pid, two.process.pid)
    while ((await me(two, ada)).status === 200) await Bun.sleep(10)
    expect(elapsed()).toBeLessThan(1000)
  })

  test('an outage of PostgreSQL is a 503 in time, it answers again soon, and nothing answered is lost', async () => {
    await outage('PostgreSQL killed', { begin: () => server.kill(), end: () => server.start() })
  })

  test('so is an outage of the proxy', async () => {
    await outage('PgBouncer killed', {
      begin: () => proxy.kill(),
      end: () => proxy.start(),
    })
  })

  test('a table that another session has locked does not hold up the rest, nor do statements pile up', async () => {
    const api = copies[0]!
    const traffic = startTraffic(api, users)
    await traffic.more('answered', 300)
    const release = await holdOpen(server.url, 'lock table tasks in access exclusive mode')
    // What was under way together with the first that were locked out has to be settled.
    await Bun.sleep(3500)
    const waiting = await execute(server.url, `select 1 from pg_stat_activity where wait_event_type = 'Lock'`)
    const others = await Promise.all(Array.from({ length: 20 }, () => me(api, users[0]!)))
    await release()
    const measured = traffic.measureRecovery()
    await traffic.more('answered', 300)
    const seen = await traffic.end()

    const recovery = measured()
    report('locked table', { ...figures(seen), recovery, waiting: waiting.length })
    expect(seen.faults).toEqual([])
    expect(others.map(answer => answer.status)).toEqual(Array(20).fill(200))
    expect(recovery).toBeLessThan(recoveryMax)
    expect(waiting.length).toBeLessThanOrEqual(10)
  })

  async function outage(name: string, phase: { begin: () => unknown; end: () => unknown }) {
    await execute(server.url, 'truncate tasks cascade')
    const traffic = startTraffic(copies[0]!, users)
    const probes = startProbes(copies[0]!)
    await traffic.more('answered', 300)
    await phase.begin()
    await Bun.sleep(2000)
    await traffic.more('refused', 30)
    await phase.end()
    const measured = traffic.measureRecovery()
    await traffic.more('answered', 300)
    await Bun.sleep(500)
    const seen = await traffic.end()
    const recovery = measured()
    const health = await probes.end()

    report(name, { ...figures(seen), recovery, slowestReady: health.slowestReady })
    expect([...seen.faults, ...health.faults]).toEqual([])
    expect(seen.slowest).toBeLessThan(answerMax)
    expect(recovery).toBeLessThan(recoveryMax)
    const sql = async (text: string) => (await execute(server.url, text)).map(row => Object.values(row))
    expect(await auditBooks(copies[0]!, seen, sql)).toEqual([])
  }

  const start = (prepare: string) =>
    startExecutable({
      ...testSettings,
      DATABASE_URL: proxy.through(server.url),
      DATABASE_PREPARE: prepare,
    })
})

const me = (api: Client, { token }: User) => api.get('/users/me', { token })
