import { afterEach, expect, test } from 'bun:test'
import { type Running, startExecutable, untilReady } from './support/executable.ts'
import { testSettings } from './support/harness.ts'
import { execute, type PostgresServer } from './support/postgres-server.ts'
import { addressOf, markAsStandby, promote, startPair } from './support/standby.ts'
import { auditBooks, figures, report, startProbes, startTraffic } from './support/traffic.ts'

const answerMax = 2500
const recoveryMax = 2000

let running: { stop(): Promise<unknown> }[] = []
afterEach(async () => {
  await Promise.all(running.map(one => one.stop()))
  running = []
})

test.each([
  ['killed', (primary: PostgresServer) => primary.kill()],
  ['frozen, as if its machine had gone,', (primary: PostgresServer) => primary.freeze()],
])(
  'a primary is %s and its standby promoted: the service goes on there, and nothing answered is lost',
  async (how, remove) => {
    const { primary, standby } = await pair()
    const url = addressOf(primary, standby)
    const api = await start(url)
    const users = await Promise.all(Array.from({ length: 5 }, () => api.user()))
    const traffic = startTraffic(api, users)
    const probes = startProbes(api)
    await traffic.more('answered', 300)

    const notReady = probes.measureUntil(false)
    await remove(primary)
    await Bun.sleep(1500)
    await traffic.more('refused', 30)
    expect(notReady()).toBeLessThan(recoveryMax)
    await promote(standby)
    const measured = traffic.measureRecovery()
    await traffic.more('answered', 300)
    await Bun.sleep(300)
    const recovery = measured()

    // The old one comes back, by an operator's mistake: it accepts writes.
    primary.thaw()
    await primary.start()
    const written = await writtenTo(primary)
    const [moment] = await execute(primary.url, 'select now()::text as now')
    await traffic.more('answered', 300)
    expect(await writtenTo(primary)).toEqual(written)
    expect(await sessionsOf(primary, moment!.now)).toBe(0)

    const seen = await traffic.end()
    const health = await probes.end()
    report(`primary ${how}`, {
      ...figures(seen),
      recovery,
      ...{ slowestLive: health.slowestLive, slowestReady: health.slowestReady },
    })
    expect([...seen.faults, ...health.faults]).toEqual([])
    expect(seen.slowest).toBeLessThan(answerMax)
    expect(recovery).toBeLessThan(recoveryMax)
    const sql = async (text: string) => (await execute(standby.url, text)).map(row => Object.values(row))
    expect(await auditBooks(api, seen, sql)).toEqual([])

    // As it should come back: a copy that is started now finds the new one, whatever the order of the hosts.
    await primary.stop('immediate')
    markAsStandby(primary.dataDir)
    await primary.start()
    const another = await start(url)
    const task = await another.task(users[0]!)
    expect(await execute(standby.url, `select id from tasks where id = '${task.id}'`)).toHaveLength(1)
    expect(await sessionsOf(primary)).toBe(0)
  },
  60_000,
)

async function pair() {
  const { primary, standby } = await startPair()
  running.push({ stop: () => primary.close() }, { stop: () => standby.close() })
  return { primary, standby }
}

async function start(url: string): Promise<Running> {
  const api = await startExecutable({ ...testSettings, DATABASE_URL: url })
  running.push(api)
  await untilReady(api)
  return api
}

/** What tells one state of the tasks from another. */
const writtenTo = ({ url }: PostgresServer) =>
  execute(url, 'select count(*)::int, max(updated_at)::text from tasks')

/**
 * Of a thawed server only those that began later: what was under way is carried out, but no standby confirms it, so
 * no client received an answer that it was done.
 */
async function sessionsOf({ url }: PostgresServer, since = 'epoch'): Promise<number> {
  const sessions = `select 1 from pg_stat_activity where application_name = 'todo-api' and backend_start > '${since}'`
  return (await execute(url, sessions)).length
}
