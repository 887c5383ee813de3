import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { openEvents } from './support/event-stream.ts'
import { type Running, startExecutable, untilReady } from './support/executable.ts'
import { type Client, client, testSettings, type User } from './support/harness.ts'
import { haproxy } from './support/load-balancers.ts'
import { isListening } from './support/ports.ts'
import { type PrivateDatabase, privateDatabase } from './support/template.ts'
import { until } from './support/until.ts'

if (!haproxy.isInstalled) {
  process.stderr.write('\nNOT RUN: the test of a rolling restart needs HAProxy, and there is none in PATH.\n')
}

/** The executable of an earlier release; `bun scripts/rolling-upgrade.ts COMMIT` builds it and runs this file. */
const earlier = process.env.ROLLING_FROM
if (!earlier) {
  process.stderr.write('\nNOT RUN: a rolling upgrade and downgrade: bun scripts/rolling-upgrade.ts COMMIT\n')
}

/** What each build is replaced by, one replica after the other; `undefined` is the build of this tree. */
const cases = [
  { name: 'are restarted', builds: [undefined, undefined] },
  ...(earlier ? [{ name: 'are upgraded and downgraded', builds: [earlier, undefined, earlier] }] : []),
]

/** Three copies behind the load balancer of deploy/haproxy.cfg, on one PostgreSQL. */
describe.skipIf(!haproxy.isInstalled).each(cases)(
  'three replicas behind HAProxy $name',
  ({ builds: [first, ...next] }) => {
    const [front, ...ports] = takePorts(4) as [number, number, number, number]
    let database: PrivateDatabase
    let replicas: Running[]
    let balancer: ReturnType<typeof haproxy.start>

    const start = (port: number, path?: string) => {
      const env = {
        ...testSettings,
        PORT: String(port),
        DATABASE_URL: database.url,
        TRUSTED_PROXIES: '127.0.0.1',
        SHUTDOWN_DELAY_SECONDS: '3',
      }
      return startExecutable(env, path)
    }

    beforeAll(async () => {
      database = await privateDatabase()
      replicas = await Promise.all(ports.map(port => start(port, first)))
      await Promise.all(replicas.map(untilReady))
      balancer = haproxy.start(front, ports)
    }, 60_000)

    afterAll(async () => {
      await balancer?.stop()
      await Promise.all((replicas ?? []).map(replica => replica.stop()))
      await database?.drop()
    })

    test('send events that HAProxy does not hold back', async () => {
      const [port] = ports
      const [only] = takePorts(1) as [number]
      const [direct, through] = [port, only].map(port => client(`http://127.0.0.1:${port}`)) as [
        Client,
        Client,
      ]
      // Another replica would learn of a write later.
      const ofOne = haproxy.start(only, [port])
      try {
        await until(() => isListening(only))
        await untilReady(through)
        const { token } = await direct.user()
        const streams = await Promise.all([direct, through].map(api => openEvents(api, { token })))
        const delays: number[] = []
        for (let i = 1; i <= 5; i++) {
          await direct.post('/tasks', { token, json: { title: `${i}` } })
          const [first, second] = await Promise.all(
            streams.map(async stream => {
              await until(() => stream.changes().tasks.length === i)
              return performance.now()
            }),
          )
          delays.push(second! - first!)
        }
        await Promise.all(streams.map(stream => stream.close()))

        expect(delays.sort((a, b) => a - b)[2]).toBeLessThan(100)
      } finally {
        await ofOne.stop()
      }
    })

    test('one after another under load, and no request fails', async () => {
      const api = client(`http://127.0.0.1:${front}`)
      await until(async () => {
        await api.get('/tasks').catch(() => {})
        return replicas.every(isServing)
      })
      const users = await Promise.all(Array.from({ length: 8 }, () => api.user()))
      const load = users.map(user => useUntilStopped(api, user))

      for (const build of next) {
        for (const [i, port] of ports.entries()) {
          expect(await replicas[i]!.stop()).toBe(0)
          replicas[i] = await start(port, build)
          await until(() => isServing(replicas[i]!))
        }
      }

      const results = await Promise.all(load.map(({ stop }) => stop()))
      expect(results.flatMap(({ failures }) => failures)).toEqual([])
      const requests = results.reduce((sum, result) => sum + result.requests, 0)
      console.log(`${requests} requests, 0 failed or wrong`)
      expect(requests).toBeGreaterThan(500)
      // Nothing that was answered is lost, and nothing was done twice.
      for (const [i, { created }] of results.entries()) {
        const { headers } = await api.get('/tasks?limit=1&total=true', { token: users[i]!.token })
        expect(Number(headers.get('x-total-count'))).toBe(created)
      }
    }, 120_000)
  },
)

/** Has HAProxy sent it anything but its own questions? */
const isServing = ({ lines }: Running) => lines.some(line => /"route":"(?!\/health)/.test(line))

/** Reads and writes without a pause until it is stopped; everything but the expected answer is a failure: status, and
 * whose task it is. */
function useUntilStopped(api: Client, { token, id, email }: User) {
  const failures: string[] = []
  let requests = 0
  let created = 0
  let stopped = false

  async function expectAnswer(status: number, method: string, path: string, json?: object) {
    requests++
    try {
      const answer = await api.request(method, path, { token, json })
      const tasks: { user_id: string; title: string }[] = [answer.body].flat()
      const isRight = tasks.every(({ user_id, title }) => user_id === id && title === email)
      if (answer.status === status && isRight) return answer
      failures.push(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`)
    } catch (error) {
      failures.push(`${method} ${path}: ${error}`)
    }
  }

  async function use() {
    while (!stopped) {
      const made = await expectAnswer(201, 'POST', '/tasks', { title: email })
      if (!made) continue
      created++
      await expectAnswer(200, 'PATCH', `/tasks/${made.body.id}`, { status: 'completed' })
      await expectAnswer(200, 'GET', `/tasks/${made.body.id}`)
      await expectAnswer(200, 'GET', '/tasks?limit=10')
      // Eight users at work, not eight machines.
      await Bun.sleep(20)
    }
  }

  const done = use()
  return {
    async stop() {
      stopped = true
      await done
      return { failures, requests, created }
    },
  }
}

/** Below the range from which the system takes ports for outgoing connections: they must be free once more later. */
function takePorts(count: number): number[] {
  const servers: { port?: number; stop(): unknown }[] = []
  while (servers.length < count) {
    const port = 10_000 + Math.floor(Math.random() * 20_000)
    try {
      servers.push(Bun.listen({ hostname: '127.0.0.1', port, socket: { data() {} } }))
    } catch {
      // The port is taken.
    }
  }
  return servers.map(server => {
    server.stop()
    return server.port!
  })
}
