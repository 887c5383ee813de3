import postgres from 'postgres'
import { type Running, startExecutable, untilReady } from '../support/executable.ts'
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts'
import { testSettings } from '../support/harness.ts'
import { type PgBouncer, pgbouncer, startPgBouncer } from '../support/pgbouncer.ts'
import { execute, type PostgresServer, startPostgresServer } from '../support/postgres-server.ts'
import { type Random, randomFrom } from '../support/random.ts'
import { stopwatch } from '../support/stopwatch.ts'
import { type Clients, startClients } from './clients.ts'
import { isCopy, type TaskRow } from './ledger.ts'
import { createTally, type Tally } from './tally.ts'

/** How soon the service must be ready after the database's return, and refuse nothing more, in milliseconds. */
const recoveryMax = 2000
/** A service that is not ready by then is started again, so that the other faults have one. */
const hangsAfter = 6000

/** Where the faults happen: a server, two ways to it, the service, and its clients. */
export interface Stage {
  server: PostgresServer
  proxy: FaultProxy
  /** It pools transactions. */
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
}

/** The service reaches the server through the proxy. */
export async function openStage({ seed, seconds }: Options) {
  // A commit that was answered is in the log's file.
  const server = await startPostgresServer({ parameters: ['synchronous_commit=on'] })
  const proxy = await startFaultProxy(server.port)
  const bouncer = pgbouncer ? await startPgBouncer(server.url) : undefined
  const tally = createTally()
  const settings = { ...testSettings, DATABASE_URL: proxy.through(server.url) }
  const api = await startExecutable(settings)
  await untilReady(api)
  let { pid } = api.process
  let isPooled = false
  const watch = () => stopwatch(pid)
  const clients = await startClients(api, { seed, tally, stopwatch: watch })
  const stage: Stage = { server, proxy, bouncer, api, clients, tally, random: randomFrom(seed), seconds }
  await clients.flow(100)
  await clients.pause()

  /** One fault from its beginning to the audit afterwards; what it did wrong, in words. */
  async function play({ name, refusedMax = 1, isFelt = false, run }: Fault): Promise<string[]> {
    const section = tally.begin(isPooled ? `${name}, behind PgBouncer` : name)
    const before = { ...section }
    clients.resume()
    await clients.flow(30)
    await run(stage)
    await untilWell()
    await clients.pause()
    await untilIdle(server.url)
    await clients.audit(readRows)
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
    const flows = await clients.flow(64)
    const recovery = Math.max(ready, refusing())
    tally.recovered(recovery)
    if (ready > hangsAfter) tally.fail('not ready', `after ${hangsAfter} ms: the service was started again`)
    else if (recovery > recoveryMax) tally.fail('not ready', `it refused requests for ${recovery} ms`)
    if (!flows) tally.fail('not ready', 'it goes on refusing requests')
    if (stage.api.process.exitCode !== null) throw new Error('the service has ended')
  }

  /** Every task as its columns say; the stored JSON must say the same. */
  async function readRows(): Promise<TaskRow[]> {
    const rows: Iterable<Record<string, any>> = await execute(
      server.url,
      `select id, user_id, title, description, status, priority, to_json(tags) as tags, due_at, version::float8 as version,
              case when deleted_at is null then 'live' else 'trash' end as presence, json
       from tasks`,
    )
    return Array.from(rows, ({ json, due_at, ...columns }) => {
      const row = { ...columns, due_at: due_at?.toISOString() ?? null } as TaskRow
      if (!isCopy(json, row)) tally.fail('spoilt row', `tasks.json: ${json}`)
      return row
    })
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
    /** From now on the service reaches the server through PgBouncer. */
    async usePool() {
      isPooled = true
      settings.DATABASE_URL = bouncer!.through(server.url)
      await restart()
      await clients.flow(100)
      await clients.pause()
    },
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
