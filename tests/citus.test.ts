import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import postgres from 'postgres'
import { parseConfig } from '../src/config/config.ts'
import { distribute, undistributedTables } from '../src/db/distribute.ts'
import type { Driver, Query } from '../src/db/driver.ts'
import { createDb } from '../src/db/drizzle.ts'
import { migrate, migrations } from '../src/db/migrator.ts'
import { openDriver } from '../src/db/open-driver.ts'
import { distributedTables } from '../src/modules/table-registry.ts'
import { createErasure } from '../src/modules/tasks/erasure.ts'
import { createApp } from '../src/server/app.ts'
import { createLog } from '../src/telemetry/log.ts'
import { type CitusCluster, citusPrograms, startCitus } from './support/citus.ts'
import { runCommand } from './support/command.ts'
import { type Running, startExecutable, untilReady } from './support/executable.ts'
import { type Client, client, testSettings, type User } from './support/harness.ts'
import { execute } from './support/postgres-server.ts'
import { auditBooks, startTraffic } from './support/traffic.ts'
import { until } from './support/until.ts'

/** The coordinator of a cluster that is there, with an empty database; else one is started where Citus is installed. */
const givenUrl = process.env.TEST_CITUS_URL
if (!givenUrl && !citusPrograms) {
  process.stderr.write(
    '\nNOT RUN: the tests on Citus; TEST_CITUS_URL names a coordinator, or install Citus for PostgreSQL\n',
  )
}

describe.skipIf(!givenUrl && !citusPrograms)('on Citus', () => {
  let cluster: CitusCluster | undefined
  let url: string
  let service: Running

  const settings = () => ({
    ...testSettings,
    DATABASE_URL: url,
  })

  beforeAll(async () => {
    cluster = givenUrl ? undefined : await startCitus()
    url = givenUrl ?? cluster!.url
    await runCommand(['migrate', '--distribute'], { env: settings() })
    service = await startExecutable(settings())
    await untilReady(service)
  }, 120_000)

  afterAll(async () => {
    await service?.stop()
    await cluster?.close()
  })

  test('`migrate --distribute` has split every table of users’ rows, and is done once', async () => {
    const again = await runCommand(['migrate', '--distribute'], { env: settings() })
    const rows = await execute(url, 'select table_name::text, distribution_column from citus_tables')

    expect([again.exitCode, again.stderr]).toEqual([0, 'up to date\n'])
    expect(
      rows.map(({ table_name, distribution_column }) => [table_name, distribution_column]).sort(),
    ).toEqual(distributedTables.map(({ name, column }) => [name, column]).sort())
  })

  test('a table that is not distributed is named by readiness and doctor, and distributed by `migrate`', async () => {
    const name = 'task_tombstones'
    await execute(url, `alter table ${name} drop constraint task_tombstones_user_fk`)
    await execute(url, `select undistribute_table('${name}')`)

    const ready = await service.get('/health/ready')
    const doctor = await runCommand(['doctor'], { env: settings() })
    const migrate = await runCommand(['migrate'], { env: settings() })

    expect([ready.status, ready.body.detail]).toEqual([503, expect.stringContaining(name)])
    expect(doctor.stdout).toContain(`not distributed: ${name}`)
    expect(migrate.stderr).toContain(`distributed ${name} by user`)
    expect((await service.get('/health/ready')).status).toBe(200)
    const key = 'foreign key (user_id) references user_versions (user_id) on delete cascade'
    await execute(url, `alter table ${name} add constraint task_tombstones_user_fk ${key}`)
  }, 60_000)

  test.skipIf(givenUrl !== undefined)(
    'a database that is distributed takes the migrations that follow',
    async () => {
      const config = parseConfig({ ...settings(), DATABASE_URL: await cluster!.createDatabase('older') })
      const driver = await openDriver(config.database)
      const first = distributedTables.filter(({ name }) =>
        migrations[0]!.sql.includes(`CREATE TABLE "${name}"`),
      )
      try {
        await migrate(driver, [], migrations.slice(0, 1))
        // Citus is there, and is not used.
        expect(await undistributedTables(driver, first)).toBeUndefined()
        const { distributing } = await driver.dedicatedConnection(async reader => {
          await reader.execute('begin; lock table tasks in access share mode')
          const distributing = distribute(driver, first)
          const isWaiting = `select true from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
          await until(async () => (await driver.query(isWaiting, [])).length > 0)
          // Requests do not wait for the reader.
          expect(await driver.query('select count(*) from tasks', [])).toEqual([[0]])
          return { distributing }
        })
        await distributing
        await migrate(driver, distributedTables)

        expect(first.length).toBeLessThan(distributedTables.length)
        expect(await undistributedTables(driver, distributedTables)).toEqual([])
      } finally {
        await driver.close()
      }
    },
    60_000,
  )

  test('each statement about one user’s tasks is one task on one shard', async () => {
    const sent = await statementsOf(parseConfig(settings()))
    const sql = postgres(url, { max: 1, onnotice: () => {}, fetch_types: false })
    const wide: string[] = []
    try {
      for (const [text, { values, name }] of sent) {
        if (!distributedTables.some(table => new RegExp(`\\b${table.name}\\b`).test(text))) continue
        const statement = text.replace(/\$(\d+)/g, (_, n) => literal(values[n - 1]))
        const plan = JSON.stringify(await sql.unsafe(`explain ${statement}`))
        // An insert of rows that the coordinator has made shows no task: they have one user, so they go to one shard.
        const isNarrow = /Task Count: 1\b|Citus INSERT/.test(plan) && !/Task Count: (?!1\b)/.test(plan)
        if (!isNarrow) wide.push(`${name}: ${text}`)
      }
    } finally {
      await sql.end()
    }

    expect(wide.filter(statement => !knownToBeWide.test(statement))).toEqual([])
  }, 60_000)

  test('the purge removes what an interrupted deletion of an account left', async () => {
    const { user } = await newcomer(service)
    const { user: other } = await newcomer(service)
    await execute(url, `delete from users where id = '${user.id}'`)

    await purgeOn(parseConfig(settings()))

    const left = await execute(url, `select count(*)::int from tasks where user_id = '${user.id}'`)
    expect(left.map(row => Object.values(row))).toEqual([[0]])
    expect((await service.get('/tasks', other)).body).toHaveLength(4)
  })

  test.skipIf(givenUrl !== undefined)(
    'with one worker dead the users of the other are served, and the rest get 503 in time',
    async () => {
      const users = await Promise.all(Array.from({ length: 16 }, () => newcomer(service)))
      const dead = await workerOf(users[0]!)
      const places = await Promise.all(users.map(({ user }) => portOf(user)))
      const isServed = (i: number) => places[i] !== dead.port
      await dead.kill()
      try {
        const wrong: string[] = []
        for (const [kind, request] of Object.entries(requests)) {
          const answers = await Promise.all(
            users.map(async user => {
              const began = performance.now()
              const { status } = await request(service, user)
              return { status, ms: performance.now() - began }
            }),
          )
          for (const [i, { status, ms }] of answers.entries()) {
            if (isServed(i) ? status >= 300 : status !== 503 || ms > 2500)
              wrong.push(
                `${kind}: ${status} after ${Math.round(ms)} ms for a user ${isServed(i) ? 'of the other' : 'of the dead worker'}`,
              )
          }
        }
        expect(wrong).toEqual([])
      } finally {
        await dead.start()
      }
    },
    60_000,
  )

  test.skipIf(givenUrl !== undefined)(
    'while shards move to a third worker no request fails with 500, and nothing answered is lost',
    async () => {
      const users = await Promise.all(Array.from({ length: 8 }, () => service.user()))
      const traffic = startTraffic(service, users)
      await traffic.more('answered', 300)
      await cluster!.rebalance()
      await traffic.more('answered', 300)
      const seen = await traffic.end()

      const sql = async (text: string) => (await execute(url, text)).map(row => Object.values(row))
      expect([...seen.faults, ...(await auditBooks(service, seen, sql))]).toEqual([])
    },
    120_000,
  )

  /** The port of the server that has a user's rows. */
  async function portOf({ id }: User): Promise<number> {
    const [row] = await execute(
      url,
      `select nodeport from citus_shards where shardid = get_shard_id_for_distribution_column('tasks', '${id}'::uuid)`,
    )
    return row!.nodeport
  }

  async function workerOf({ user }: Newcomer) {
    const port = await portOf(user)
    return cluster!.workers.find(worker => worker.port === port)!
  }
})

/** Runs the purge, as the service does every ten minutes. */
async function purgeOn({ database }: ReturnType<typeof parseConfig>): Promise<void> {
  const driver = await openDriver(database)
  const failures: unknown[] = []
  try {
    await createErasure(createDb(driver), { error: (...failure) => failures.push(failure) }).purge()
  } finally {
    await driver.close()
  }
  expect(failures).toEqual([])
}

/** A user, with tasks to read, change and delete. */
interface Newcomer {
  user: User
  tasks: string[]
}

async function newcomer(api: Client): Promise<Newcomer> {
  const user = await api.user()
  const tasks: string[] = []
  for (let i = 0; i < 5; i++) tasks.push((await api.task(user)).id)
  await api.delete(`/tasks/${tasks[0]}`, user)
  return { user, tasks }
}

/** What is one statement on one user's rows, or a transaction of such. */
const requests: Record<string, (api: Client, newcomer: Newcomer) => Promise<{ status: number }>> = {
  list: (api, { user }) => api.get('/tasks', user),
  'list by status': (api, { user }) => api.get('/tasks?status=pending', user),
  search: (api, { user }) => api.get('/tasks?q=milk&sort=title&total=true', user),
  read: (api, { user, tasks }) => api.get(`/tasks/${tasks[1]}`, user),
  changes: (api, { user }) => api.get('/tasks/changes', user),
  stats: (api, { user }) => api.get('/tasks/stats', user),
  create: (api, { user: { token } }) => api.post('/tasks', { token, json: { title: 'x' } }),
  'create with an own id': (api, { user: { token } }) =>
    api.post('/tasks', { token, json: { title: 'x', id: crypto.randomUUID() } }),
  'idle poll': (api, { user: { token } }) =>
    api.get('/tasks', { token, headers: { 'if-none-match': '"x"' } }),
  'begin of a stream': (api, { user }) => api.request('HEAD', '/tasks/events', user),
  'create in a list': async (api, { user: { token } }) => {
    const list = await api.post('/lists', { token, json: { name: 'x' } })
    return list.status < 300
      ? api.post('/tasks', { token, json: { title: 'x', list_id: list.body.id } })
      : list
  },
  'delete a list, and keep its tasks': (api, { user }) => deleteNewList(api, user, 'keep'),
  'delete a list, and trash its tasks': (api, { user }) => deleteNewList(api, user, 'trash'),
  'create a sub-task': (api, { user: { token }, tasks }) =>
    api.post('/tasks', { token, json: { title: 'x', parent_id: tasks[1] } }),
  lists: (api, { user }) => api.get('/lists?counts=true', user),
  'create with a key': (api, { user: { token } }) =>
    api.post('/tasks', { token, json: { title: 'x' }, headers: { 'idempotency-key': crypto.randomUUID() } }),
  update: (api, { user: { token }, tasks }) =>
    api.patch(`/tasks/${tasks[1]}`, { token, json: { status: 'completed' } }),
  batch: (api, { user: { token }, tasks }) =>
    api.post('/tasks/batch', {
      token,
      json: {
        operations: [
          { op: 'create', task: { title: 'x' } },
          { op: 'create', id: crypto.randomUUID(), task: { title: 'y', status: 'completed', tags: ['x'] } },
          { op: 'update', id: tasks[1], task: { title: crypto.randomUUID() } },
          { op: 'delete', id: tasks[4] },
        ],
      },
    }),
  trash: (api, { user, tasks }) => api.delete(`/tasks/${tasks[2]}`, user),
  'list of the trash': (api, { user }) => api.get('/tasks/trash', user),
  restore: (api, { user, tasks }) => api.post(`/tasks/${tasks[0]}/restore`, user),
  erase: (api, { user, tasks }) => api.delete(`/tasks/${tasks[3]}?permanent=true`, user),
  'empty the trash': (api, { user }) => api.delete('/tasks/trash', user),
}

/** Creates, changes and deletes a list; the answer is the first that is refused, or the last. */
async function deleteNewList(api: Client, user: User, tasks: 'keep' | 'trash') {
  const { token } = user
  const list = await api.post('/lists', { token, json: { name: 'x' } })
  if (list.status >= 300) return list
  const changed = await api.patch(`/lists/${list.body.id}`, { token, json: { name: 'y' } })
  return changed.status < 300 ? api.delete(`/lists/${list.body.id}?tasks=${tasks}`, user) : changed
}

/**
 * Statements that ask more than one shard: the look that tells another user's task (403) from none (404), and a
 * registration, which writes a row on the coordinator as well. The poll for streams asks for many users at once.
 */
const knownToBeWide = /^(register|missing): /

/** A value of a statement as SQL. */
function literal(value: unknown): string {
  if (value === null || value === undefined) return 'null'
  const isArray = Array.isArray(value) && value.every(item => typeof item !== 'object')
  const json = typeof value === 'object' ? JSON.stringify(value) : String(value)
  const text = isArray ? `{${json.slice(1, -1)}}` : json
  return `'${text.replaceAll("'", "''")}'`
}

/** Every statement of every kind of request, with its values. */
async function statementsOf(config: ReturnType<typeof parseConfig>) {
  const sent = new Map<string, { values: readonly unknown[]; name: string }>()
  let name = 'register'
  const record =
    (query: Query): Query =>
    (text, values, options) => {
      if (!sent.has(text)) sent.set(text, { values, name })
      return query(text, values, options)
    }
  const driver = await openDriver(config.database)
  const recording: Driver = {
    ...driver,
    query: record(driver.query),
    transaction: work => driver.transaction(query => work(record(query))),
  }
  const { app } = createApp({
    config,
    secretKey: config.secretKey!,
    driver: recording,
    log: createLog({ level: 'error', pretty: false, write: () => {} }),
    readiness: async () => ({ ready: true }),
    peerOf: () => null,
  })
  const server = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: app.fetch })
  try {
    const api = client(server.url.href.replace(/\/$/, ''))
    const user = await api.user()
    name = 'create'
    const tasks: string[] = []
    for (let i = 0; i < 5; i++) tasks.push((await api.task(user)).id)
    await api.delete(`/tasks/${tasks[0]}`, user)
    for (const [kind, request] of Object.entries(requests)) {
      name = kind
      const { status } = await request(api, { user, tasks })
      if (status >= 300) throw new Error(`${kind}: ${status}`)
    }
    name = 'missing'
    await api.get(`/tasks/${crypto.randomUUID()}`, user)
  } finally {
    await server.stop(true)
    await driver.close()
  }
  return sent
}
