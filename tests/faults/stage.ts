import postgres from 'postgres'
import { type Running, startExecutable, untilReady } from '../support/executable.ts'
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts'
import { type PgBouncer, startPgBouncer } from '../support/pgbouncer.ts'
import { execute, type PostgresServer, startPostgresServer } from '../support/postgres-server.ts'
import { type Random, randomFrom } from '../support/random.ts'
import { stopwatch } from '../support/stopwatch.ts'
import { type Clients, startClients } from './clients.ts'
import type { TaskRow } from './ledger.ts'
import { createTally, type Tally } from './tally.ts'

/** How soon the service must be ready after the database's return, and refuse nothing more, in milliseconds. */
const recoveryMax = 2000
/** A service that is not ready by then is started again, so that the other faults have one. */
const hangsAfter = 6000

/** Where the faults happen: a server, a way to it, the service, and its clients. */
export interface Stage {
  server: PostgresServer
  proxy: FaultProxy
  bouncer: PgBouncer | undefined
  api: Running
  clients: Clients
  tally: Tally
  random: Random
  /** How long one fault goes on. */
  seconds: number
}

/** Something that happens to the database; `run` resolves when the database is back. */
export interface Fault {
  name: string
  /** The largest share of the requests meanwhile that may be refused, where the service has a bound. */
  refusedMax?: number
  /** Whether no round of it passes without refusing or losing requests: one that does has met none. */
  isFelt?: boolean
  run(stage: Stage): Promise<unknown>
}

interface Options {
  seed: number
  seconds: number
  /** Through PgBouncer, which pools transactions, in place of the proxy of the tests. */
  pooled?: boolean
}

export async function openStage({ seed, seconds, pooled = false }: Options) {
  // A commit that was answered is in the log's file.
  const server = await startPostgresServer({ parameters: ['synchronous_commit=on'] })
  const proxy = await startFaultProxy(server.port)
  const bouncer = pooled ? await startPgBouncer(server.url) : undefined
  const tally = createTally()
  const settings = {
    DATABASE_URL: (bouncer ?? proxy).through(server.url),
    SECRET_KEY: 'test-secret-test-secret-test-secret-0123',
    ENVIRONMENT: 'test',
    BCRYPT_COST: '4',
    ...{ LOGIN_LIMIT: '0', REGISTER_LIMIT: '0', LOGIN_FAILURE_LIMIT: '0' },
  }
  const api = await startExecutable(settings)
  await untilReady(api)
  let { pid } = api.process
  const watch = () => stopwatch(pid)
  const clients = await startClients(api, { seed, tally, stopwatch: watch })
  const stage: Stage = { server, proxy, bouncer, api, clients, tally, random: randomFrom(seed), seconds }
  await clients.flow(100)
  await clients.pause()

  /** One fault from its beginning to the audit afterwards; what it did wrong, in words. */
  async function play({ name, refusedMax = 1, isFelt = false, run }: Fault): Promise<string[]> {
    const section = tally.begin(name)
    const before = { ...section }
    clients.resume()
    await clients.flow(30)
    await run(stage)
    await untilWell()
    await clients.pause()
    await untilIdle(server.url)
    await clients.audit(() => readRows(server.url))
    for (const text of await spoiltValues(server.url)) tally.fail('spoilt row', text)
    const refused = section.refused - before.refused
    const share = refused / (refused + section.answered - before.answered)
    if (share > refusedMax) tally.fail('refused too often', `${(100 * share).toFixed(1)} % of the requests`)
    if (isFelt && refused === 0) tally.fail('not felt', 'no request was refused or lost')
    if (section.failures.has('status 500')) section.examples.push(...errorsOf(stage.api))
    stage.api.lines.length = 0
    return section.examples
  }

  /** Notes how long the service takes until it is ready and refuses nothing more. */
  async function untilWell() {
    const refusing = clients.measureRecovery()
    const ready = await readyAfter(stage.api, watch())
    if (ready > hangsAfter) await restart()
    const flows = await clients.flow(100)
    const recovery = Math.max(ready, refusing())
    tally.recovered(recovery)
    if (ready > hangsAfter) tally.fail('not ready', `after ${hangsAfter} ms: the service was started again`)
    else if (recovery > recoveryMax) tally.fail('not ready', `it refused requests for ${recovery} ms`)
    if (!flows) tally.fail('not ready', 'it goes on refusing requests')
    if (stage.api.process.exitCode !== null) throw new Error('the service has ended')
  }

  async function restart() {
    await clients.pause()
    const { port } = new URL(stage.api.url)
    await stage.api.stop()
    stage.api = await startExecutable({ ...settings, PORT: port })
    pid = stage.api.process.pid
    await untilReady(stage.api)
    clients.resume()
  }

  return {
    stage,
    play,
    async close() {
      await clients.end()
      await stage.api.stop()
      await bouncer?.stop()
      await proxy.stop()
      await server.close()
    },
  }
}

/** Milliseconds until the service says that it is ready, at most a little over `hangsAfter`. */
async function readyAfter(api: Running, elapsed: () => number): Promise<number> {
  for (;;) {
    const { status } = await api.get('/health/ready')
    const took = elapsed()
    if (status === 200 || took > hangsAfter) return took
    await Bun.sleep(20)
  }
}

/** Waits until no session works any more: a statement may go on after its client has been refused. */
async function untilIdle(url: string) {
  const busy = `select 1 from pg_stat_activity where application_name = 'todo-api' and state <> 'idle'`
  for (let i = 0; i < 200 && (await execute(url, busy)).length > 0; i++) await Bun.sleep(20)
}

async function readRows(url: string): Promise<TaskRow[]> {
  const rows: Iterable<Record<string, any>> = await execute(
    url,
    `select id, user_id, title, description, status, priority, to_json(tags) as tags, due_at, version::float8 as version,
            case when deleted_at is null then 'live' else 'trash' end as presence
     from tasks`,
  )
  return Array.from(
    rows,
    ({ due_at, ...row }) => ({ ...row, due_at: due_at?.toISOString() ?? null }) as TaskRow,
  )
}

/** JSON of a task that differs from its columns, and JSON that is a text: an object that was encoded twice. */
async function spoiltValues(url: string): Promise<string[]> {
  const columns = await execute(
    url,
    `select table_name, column_name, (table_name, column_name) = ('tasks', 'json') as is_copy
     from information_schema.columns
     where table_schema = 'public' and (data_type like 'json%' or (table_name, column_name) = ('tasks', 'json'))`,
  )
  const spoilt: string[] = []
  for (const { table_name, column_name, is_copy } of columns) {
    const differs = ['id', 'user_id', 'title', 'description', 'status', 'priority', 'version']
      .map(name => `value ->> '${name}' is distinct from ${name}::text`)
      .concat(`value -> 'tags' <> to_jsonb(tags)`)
    const isWrong = [`jsonb_typeof(value) = 'string'`, ...(is_copy ? differs : [])].join(' or ')
    const rows = await execute(
      url,
      `with read as materialized (select *, "${column_name}"::jsonb as value from "${table_name}")
       select left(value::text, 200) as value from read where ${isWrong}`,
    )
    spoilt.push(...rows.map(row => `${table_name}.${column_name}: ${row.value}`))
  }
  return spoilt
}

/** What the service has logged about its own failures, without what is different in each line. */
function errorsOf({ lines }: Running): string[] {
  const errors = lines
    .filter(line => line.includes('"level":"error"'))
    .map(line => line.replace(/"(time|request_id|ms|path)":"?[^,"]*"?,?/g, ''))
  return [...new Set(errors)].slice(0, 3).map(line => line.slice(0, 400))
}

/**
 * Runs statements one after another on one connection of a superuser until the time is over, and at most five seconds
 * longer until there was enough.
 */
export async function untilOver(
  { server, seconds }: Stage,
  step: (sql: (statement: string) => Promise<unknown>) => Promise<unknown>,
  isEnough = () => true,
) {
  const admin = postgres(server.url, { max: 1, onnotice: () => {}, fetch_types: false })
  const end = performance.now() + seconds * 1000
  try {
    while (performance.now() < (isEnough() ? end : end + 5000))
      await step(statement => admin.unsafe(statement))
  } finally {
    await admin.end({ timeout: 1 })
  }
}
