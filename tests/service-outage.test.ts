import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { type Running, startExecutable } from './support/executable.ts'
import { execute, type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { auditBooks, startProbes, startTraffic } from './support/traffic.ts'

/** What the service promises, in milliseconds: nobody waits longer, and it is well again soon after. */
const answerMax = 2500
const recoveryMax = 2000
const notReadyMax = 2000
/** How long each outage lasts. */
const awayMs = Number(process.env.OUTAGE_SECONDS ?? 2.5) * 1000

const secret = 'test-secret-test-secret-test-secret-0123'

describe('the executable under load, when PostgreSQL', () => {
  let server: PostgresServer
  let api: Running

  beforeAll(async () => {
    // A commit that was answered is in the log's file: what a server in production does, short of the disk's own cache.
    server = await startPostgresServer({ parameters: ['synchronous_commit=on'] })
    api = await startExecutable(settings(server.url))
    await isReady(api)
  }, 60_000)
  afterAll(async () => {
    await api?.stop()
    await server?.close()
  })

  test('is stopped', async () => {
    await outage({ begin: () => server.stop('fast'), end: () => server.start() })
  })

  test('is stopped at once, without a word to its sessions', async () => {
    await outage({ begin: () => server.stop('immediate'), end: () => server.start() })
  })

  test('is killed with all its backends', async () => {
    await outage({ begin: () => server.kill(), end: () => server.start() })
  })

  test('is frozen', async () => {
    await outage({ begin: () => server.freeze(), end: () => server.thaw(), milliseconds: awayMs + 2000 })
  })

  test('loses its backends one after another', async () => {
    const { traffic, probes } = await startLoad()
    for (let i = 0; i < 40; i++) {
      await execute(
        server.url,
        `select pg_terminate_backend(pid) from (${ours} order by random() limit 1) one`,
      )
      await Bun.sleep(25)
    }
    const since = performance.now()
    await traffic.more('answered', 100)
    const { seen, health } = await end(traffic, probes)

    report('backends', { ...figures(seen), ...health })
    expect(traffic.refusedUntil(since)).toBeLessThan(recoveryMax)
    // A few statements may be on their way on one connection.
    expect(seen.refused).toBeLessThanOrEqual(40 * 4)
    expect(seen.answered).toBeGreaterThan(seen.refused)
  })

  /** The whole promise, for one way to go away. */
  async function outage(phase: {
    begin: () => Promise<void> | void
    end: () => Promise<void> | void
    milliseconds?: number
  }) {
    const { traffic, probes } = await startLoad()

    const gone = performance.now()
    await phase.begin()
    await Bun.sleep(phase.milliseconds ?? awayMs)
    await traffic.more('refused', 30)
    const notReady = probes.readiness(false, gone)

    await phase.end()
    const back = performance.now()
    await traffic.more('answered', 300)
    await Bun.sleep(300)
    const recovery = traffic.refusedUntil(back)
    const ready = probes.readiness(true, back)
    const { seen, health } = await end(traffic, probes)

    report('outage', { ...figures(seen), recovery, notReady, ready, ...health })
    expect(recovery).toBeLessThan(recoveryMax)
    expect(notReady).toBeLessThan(notReadyMax)
    expect(ready).toBeLessThan(recoveryMax)
  }

  async function startLoad() {
    await execute(server.url, 'truncate tasks')
    const people = await Promise.all(Array.from({ length: 5 }, () => api.user()))
    const traffic = startTraffic(api, people)
    const probes = startProbes(api)
    await traffic.more('answered', 300)
    expect(traffic.seen.faults).toEqual([])
    expect(traffic.seen.refused).toBe(0)
    return { traffic, probes }
  }

  /** What holds in every outage: in time, in the right shape, alive, and no answered write lost or doubled. */
  async function end(traffic: ReturnType<typeof startTraffic>, probes: ReturnType<typeof startProbes>) {
    const seen = await traffic.end()
    const health = await probes.end()
    expect(seen.faults).toEqual([])
    expect(seen.slowest).toBeLessThan(answerMax)
    expect(health.faults).toEqual([])
    expect(health.slowestReady).toBeLessThan(answerMax)
    expect(health.slowestLive).toBeLessThan(1000)
    expect(api.process.exitCode).toBeNull()
    expect(await auditBooks(api, seen, text => rows(server.url, text))).toEqual([])
    return { seen, health }
  }
})

const ours = `select pid from pg_stat_activity where application_name = 'todo-api'`

function settings(url: string) {
  return {
    DATABASE_URL: url,
    SECRET_KEY: secret,
    ENVIRONMENT: 'test',
    BCRYPT_COST: '4',
    REGISTER_LIMIT: '0',
    LOGIN_LIMIT: '0',
    LOGIN_FAILURE_LIMIT: '0',
  }
}

async function rows(url: string, text: string): Promise<unknown[][]> {
  return (await execute(url, text)).map(row => Object.values(row))
}

async function isReady(api: Running) {
  const until = performance.now() + 10_000
  while ((await api.get('/health/ready')).status !== 200) {
    if (performance.now() > until) throw new Error('the service did not become ready')
    await Bun.sleep(25)
  }
}

const figures = ({
  answered,
  refused,
  slowest,
  created,
  unknown,
}: Awaited<ReturnType<ReturnType<typeof startTraffic>['end']>>) => ({
  answered,
  refused,
  slowest,
  created: created.size,
  unknown: unknown.size,
})

/** With OUTAGE_FIGURES set, says what was measured. */
function report(name: string, values: Record<string, unknown>) {
  if (!process.env.OUTAGE_FIGURES) return
  process.stderr.write(
    `${name}: ${JSON.stringify(values, (_, value) => (typeof value === 'number' ? Math.round(value) : value))}\n`,
  )
}
