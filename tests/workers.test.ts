import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { closeSync, linkSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Env, parseConfig } from '../src/config/config.ts'
import { migrations } from '../src/db/migrator.ts'
import { supervisorLimits } from '../src/server/cluster/supervisor.ts'
import { descendants } from './bench/measure.ts'
import { runCommand } from './support/command.ts'
import { executablePath, type Running, startExecutable, untilReady } from './support/executable.ts'
import { type Answer, testSettings } from './support/harness.ts'
import { freePort, isListening } from './support/ports.ts'
import { readPrometheus, sampled } from './support/prometheus.ts'
import { stopwatch } from './support/stopwatch.ts'
import { emptyDatabase, type PrivateDatabase, privateDatabase } from './support/template.ts'
import { until } from './support/until.ts'
import { halfSent } from './support/wire.ts'

const metricsToken = 'metrics-token-metrics-token'
let database: PrivateDatabase
beforeAll(async () => {
  database = await privateDatabase()
}, 60_000)
afterAll(() => database?.drop())

const settings = (): Env => ({
  ...testSettings,
  DATABASE_URL: database.url,
  WORKERS: '2',
})

/** Runs a test against a service whose workers have all started; nothing of it is left afterwards. */
async function withWorkers(env: Env, run: (api: Running) => Promise<void>) {
  const all = { ...settings(), ...env }
  const api = await startExecutable(all)
  const workers = descendants(api.process.pid)
  try {
    await untilReady(api)
    await until(() => events(api, 'listening').length === Number(all.WORKERS))
    workers.push(...descendants(api.process.pid))
    await run(api)
  } finally {
    api.process.kill('SIGKILL')
    for (const pid of workers) if (isAlive(pid)) process.kill(pid, 'SIGKILL')
    await api.stop()
  }
}

const parsed = ({ lines }: Running) => lines.map(line => JSON.parse(line))
const events = (api: Running, msg: string) => parsed(api).filter(line => line.msg === msg)
const pidOf = (api: Running, worker: number): number =>
  events(api, 'listening').findLast(line => line.worker === worker).pid

const portOf = (url: string) => Number(new URL(url).port)

/** A zombie (ended, but not waited for) counts as dead. */
function isAlive(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}

/** The same call over several connections: the kernel assigns each to one of the workers. */
const overNewConnections = (api: Running, count: number, path: string, token = ''): Promise<Answer[]> =>
  Promise.all(Array.from({ length: count }, () => api.get(path, { token, headers: { connection: 'close' } })))

/** Which workers have answered `path` with `status`. */
async function answeredBy(api: Running, route: string, status: number): Promise<number[]> {
  // Access lines are gathered for a tenth of a second.
  await Bun.sleep(250)
  const lines = events(api, 'request').filter(line => line.route === route && line.status === status)
  return [...new Set(lines.map(line => line.worker as number))].sort()
}

/** Calls without a pause until `stop`, each over a connection of its own; what was answered, and who got no answer. */
function startLoad(api: Running, token: string) {
  const answered = new Map<string, number>()
  const failed: string[] = []
  let stopped = false
  const loops = Array.from({ length: 10 }, async () => {
    while (!stopped) {
      const id = crypto.randomUUID()
      try {
        const headers = { 'x-request-id': id, connection: 'close' }
        answered.set(id, (await api.post('/tasks', { token, json: { title: 'Buy milk' }, headers })).status)
      } catch {
        failed.push(id)
        await Bun.sleep(20)
      }
    }
  })
  return {
    answered,
    failed,
    async stop() {
      stopped = true
      await Promise.all(loops)
    },
  }
}

describe('two workers', () => {
  test('share one port, and each says in the log which it is', async () => {
    await withWorkers({}, async api => {
      const answers = await overNewConnections(api, 60, '/health')

      expect(answers.map(({ status }) => status)).toEqual(Array(60).fill(200))
      expect(await answeredBy(api, '/health', 200)).toEqual([1, 2])
      const about = { url: `${api.url}/`, docs: `${api.url}/docs`, database: 'postgres' }
      expect(events(api, 'listening')).toMatchObject([
        { ...about, worker: 1 },
        { ...about, worker: 2 },
      ])
      expect(descendants(api.process.pid).sort()).toEqual([pidOf(api, 1), pidOf(api, 2)].sort())
    })
  }, 60_000)

  test('are replaced when they die, while the other goes on', async () => {
    await withWorkers({}, async api => {
      const { token } = await api.user()
      const load = startLoad(api, token)
      await Bun.sleep(200)
      const killed = pidOf(api, 1)
      process.kill(killed, 'SIGKILL')
      await until(() => pidOf(api, 1) !== killed)
      const failedByThen = load.failed.length
      const answeredByThen = load.answered.size
      await Bun.sleep(500)
      await load.stop()

      // Only who was talking to the one that was killed.
      expect(failedByThen).toBeLessThanOrEqual(10)
      expect(load.failed.length).toBe(failedByThen)
      expect(load.answered.size).toBeGreaterThan(answeredByThen)
      expect(new Set(load.answered.values())).toEqual(new Set([201]))
      expect(events(api, 'worker ended')).toMatchObject([
        { level: 'warn', worker: 1, pid: killed, signal: 'SIGKILL', again_in_ms: 100 },
      ])
      await overNewConnections(api, 60, '/health')
      expect(await answeredBy(api, '/health', 200)).toEqual([1, 2])
    })
  }, 60_000)

  test('answer everything that was begun when they are stopped under load', async () => {
    await withWorkers({ SHUTDOWN_DELAY_SECONDS: '1' }, async api => {
      const { token } = await api.user()
      const workers = descendants(api.process.pid)
      const load = startLoad(api, token)
      await until(() => load.answered.size > 50)

      api.process.kill('SIGTERM')
      const code = await api.process.exited
      await load.stop()
      await Bun.sleep(50)

      expect(code).toBe(0)
      expect(new Set(load.answered.values())).toEqual(new Set([201]))
      const inLog = new Set(events(api, 'request').map(line => line.request_id))
      expect(load.failed.filter(id => inLog.has(id))).toEqual([])
      expect([...load.answered.keys()].filter(id => !inLog.has(id))).toEqual([])
      expect(events(api, 'stopped').map(line => line.worker)).toEqual(expect.arrayContaining([1, 2]))
      expect(events(api, 'worker ended')).toEqual([])
      expect(readdirSync(api.folder)).not.toContain('data')
      expect(workers.filter(isAlive)).toEqual([])
    })
  }, 60_000)

  test('finish their work when a terminal or systemd signals every process', async () => {
    await withWorkers({}, async api => {
      const slow = await halfSent(api.url, (await api.user()).token)
      const workers = descendants(api.process.pid)

      for (const pid of [...workers, api.process.pid]) process.kill(pid, 'SIGINT')
      await Bun.sleep(300)
      const answer = await slow.finish()

      expect(answer).toStartWith('HTTP/1.1 201')
      expect(await api.process.exited).toBe(0)
      expect(workers.filter(isAlive)).toEqual([])
    })
  }, 60_000)

  test('leave the port when the process that watches over them is killed', async () => {
    await withWorkers({ SHUTDOWN_DELAY_SECONDS: '60' }, async api => {
      const slow = await halfSent(api.url, (await api.user()).token)
      const workers = descendants(api.process.pid)
      expect(workers).toHaveLength(2)

      api.process.kill('SIGKILL')
      await until(async () => !(await isListening(portOf(api.url))), 5)
      const answer = await slow.finish()

      expect(answer).toStartWith('HTTP/1.1 201')
      await until(() => !workers.some(isAlive), 5)
    })
  }, 60_000)

  test('refuse a token within a second after a sign-out that either of them answered', async () => {
    await withWorkers({}, async api => {
      const { token } = await api.user()
      const statuses = async () =>
        new Set((await overNewConnections(api, 40, '/users/me', token)).map(({ status }) => status))
      expect(await statuses()).toEqual(new Set([200]))
      expect(await answeredBy(api, '/api/v1/users/me', 200)).toEqual([1, 2])
      expect(await statuses()).toEqual(new Set([200]))

      await api.post('/auth/logout', { token })
      const elapsed = stopwatch(...descendants(api.process.pid))
      while ((await statuses()).has(200)) await Bun.sleep(10)
      expect(elapsed()).toBeLessThan(1000)

      expect(await statuses()).toEqual(new Set([401]))
      expect(await answeredBy(api, '/api/v1/users/me', 401)).toEqual([1, 2])
    })
  }, 60_000)

  test('share the processor between their password hashes', () => {
    const atOnce = (WORKERS: string) => parseConfig({ ...settings(), WORKERS }).hashing.atOnce
    expect(atOnce('2')).toBe(Math.max(1, Math.floor(atOnce('1') / 2)))
    expect(atOnce('64')).toBe(1)
  })

  test('run from the sources, too', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'todo-api-workers-'))
    const child = Bun.spawn([process.execPath, join(import.meta.dir, '../src/main.ts'), 'serve'], {
      cwd: folder,
      env: { PATH: process.env.PATH, PORT: '0', ...settings() },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      let log = ''
      for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
        log += chunk
        if (log.split('"listening"').length === 3) break
      }
      const url = JSON.parse(log.split('\n').find(line => line.includes('"listening"'))!).url
      expect((await fetch(`${url}health/ready`)).status).toBe(200)
      child.kill('SIGTERM')
      expect(await child.exited).toBe(0)
    } finally {
      child.kill('SIGKILL')
      rmSync(folder, { recursive: true })
    }
  }, 60_000)
})

describe('a supervisor', () => {
  /** Runs one worker after the other, each doing what its line of `script` says, until `enough` of the log is there. */
  async function supervised(
    script: string[],
    limits: Partial<typeof supervisorLimits>,
    enough: (lines: Record<string, unknown>[]) => boolean,
    stopAfterMs = 0,
  ) {
    const file = join(mkdtempSync(join(tmpdir(), 'todo-api-script-')), 'script')
    await Bun.write(file, script.join('\n'))
    const child = Bun.spawn(
      [
        process.execPath,
        join(import.meta.dir, 'support/supervised.ts'),
        JSON.stringify({ ...supervisorLimits, ...limits }),
      ],
      {
        env: { PATH: process.env.PATH, ...settings(), SCRIPT: file },
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    )
    let text = ''
    const parsed = () =>
      text
        .split('\n')
        .slice(0, -1)
        .map(line => JSON.parse(line))
    for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
      text += chunk
      if (enough(parsed())) setTimeout(() => child.kill('SIGTERM'), stopAfterMs)
    }
    return { exitCode: await child.exited, lines: parsed() }
  }

  test.concurrent('starts a worker that ends again and again less and less often, and at once after a steady one', async () => {
    const { exitCode, lines } = await supervised(
      ['live 0', 'live 0', 'live 0', 'live 0', 'live 5500', 'live 0', 'live 0'],
      { pauseMs: 20, pauseMsMax: 80, steadyMs: 5000, pingEveryMs: 1000 },
      lines => lines.length === 7,
    )

    expect(exitCode).toBe(0)
    expect(lines.map(line => line.again_in_ms)).toEqual([20, 40, 80, 80, 20, 40, 80])
  }, 60_000)

  test.concurrent('stops at once, also while it waits to start a worker again', async () => {
    const { exitCode, lines } = await supervised(['live 0'], { pauseMs: 600_000 }, lines => lines.length > 0)

    expect([exitCode, lines]).toEqual([0, [expect.objectContaining({ again_in_ms: 600_000 })]])
  }, 60_000)

  test.concurrent('kills a worker that leaves three pings unanswered, and not one that answers more, or is busy for less', async () => {
    const { exitCode, lines } = await supervised(
      ['live 4500', 'block 2500', 'block 60000'],
      { pingEveryMs: 1000 },
      lines => lines.length === 4,
    )

    expect(exitCode).toBe(0)
    const [lives, busy, hangs, ended] = lines
    expect([lives, busy, hangs, ended]).toMatchObject([
      { msg: 'worker ended', exit_code: 0 },
      { msg: 'worker ended', exit_code: 0 },
      { msg: 'worker hangs', level: 'error' },
      { msg: 'worker ended', signal: 'SIGKILL', pid: hangs.pid },
    ])
    expect(Date.parse(hangs.time) - Date.parse(busy.time)).toBeGreaterThan(3900)
  }, 60_000)

  test.concurrent('kills a worker that does not stop in time', async () => {
    const elapsed = stopwatch()
    const { exitCode } = await supervised(
      ['live 0', 'block 60000'],
      { pauseMs: 20, stopMs: 1500 },
      lines => lines.length === 1,
      1000,
    )

    expect(exitCode).toBe(0)
    expect(elapsed()).toBeWithin(2500, 10_000)
  }, 60_000)

  test('has the limits that the documents name', () => {
    const deploy = readFileSync(join(import.meta.dir, '../docs/deploy.md'), 'utf8')
    expect(deploy).toContain(`at most ${supervisorLimits.stopMs / 1000} s after step 2`)
    const scale = readFileSync(join(import.meta.dir, '../docs/scale.md'), 'utf8')
    const { pauseMs, pauseMsMax, steadyMs, pingEveryMs, unansweredMax } = supervisorLimits
    const seconds = (ms: number) => ms / 1000
    const hangs = unansweredMax * pingEveryMs
    expect(scale).toContain(
      `starts after ${seconds(pauseMs)} s (up to ${seconds(pauseMsMax)} s if it keeps\nending within ${seconds(steadyMs)} s)`,
    )
    expect(scale).toContain(
      `One that hangs is killed after ${seconds(hangs)} to ${seconds(hangs + pingEveryMs)} s`,
    )
  })
})

describe('the metrics', () => {
  const labels = { method: 'GET', route: '/health', status: '200' }

  test.each([
    ['on the port of the API', { METRICS_TOKEN: metricsToken }],
    ['on a port of their own', { METRICS_PORT: '0', METRICS_TOKEN: metricsToken }],
  ])(
    '%s are those of all workers, each with its number',
    async (_, env) => {
      await withWorkers(env, async api => {
        const url = events(api, 'metrics')[0]?.url ?? `${api.url}/metrics`
        const headers = { connection: 'close' }
        const read = async () => {
          const answer = await api.get(url, { token: metricsToken, headers })
          expect(answer.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
          return readPrometheus(answer.body)
        }
        expect((await api.get(url, { headers })).status).toBe(401)
        await overNewConnections(api, 60, '/health')
        expect(await answeredBy(api, '/health', 200)).toEqual([1, 2])

        const all = await Promise.all(Array.from({ length: 8 }, read))
        const of = (worker: string, families = all[0]!) =>
          sampled(families, 'http_requests_total', { ...labels, worker })
        const killed = pidOf(api, 2)
        const survivors = of('1')
        process.kill(killed, 'SIGKILL')
        await until(() => pidOf(api, 2) !== killed)
        const after = await read()

        expect(all.map(families => of('1', families) + of('2', families))).toEqual(Array(8).fill(60))
        for (const worker of ['1', '2']) {
          expect(of(worker)).toBeGreaterThan(0)
          expect(sampled(all[0]!, 'database_connections_max', { worker })).toBe(10)
          expect(sampled(all[0]!, 'database_up', { worker })).toBe(1)
          expect(sampled(all[0]!, 'process_resident_memory_bytes', { worker })).toBeGreaterThan(30e6)
          expect(sampled(after, 'todo_api_build_info', { worker })).toBe(1)
        }
        expect(of('1', after)).toBe(survivors)
        expect(sampled(after, 'process_start_time_seconds', { worker: '2' })).toBeGreaterThan(
          sampled(all[0]!, 'process_start_time_seconds', { worker: '2' }),
        )
      })
    },
    60_000,
  )

  test.each([
    ['on the port of the API', { METRICS_TOKEN: metricsToken }],
    ['on a port of their own', { METRICS_PORT: '0' }],
  ])(
    '%s are refused while a worker does not answer, and there again when it does',
    async (_, env) => {
      await withWorkers(env, async api => {
        expect(events(api, 'metrics')).toHaveLength(Number('METRICS_PORT' in env))
        const url = events(api, 'metrics')[0]?.url ?? `${api.url}/metrics`
        const headers = { connection: 'close', authorization: `Bearer ${metricsToken}` }
        // On the port of the API, the worker that does not answer receives some of them.
        const read = () =>
          Promise.allSettled(
            Array.from({ length: 20 }, () => fetch(url, { headers, signal: AbortSignal.timeout(7000) })),
          )
        const statuses = (answers: Awaited<ReturnType<typeof read>>) =>
          new Set(answers.flatMap(answer => (answer.status === 'fulfilled' ? [answer.value.status] : [])))
        process.kill(pidOf(api, 2), 'SIGSTOP')

        expect(statuses(await read())).toEqual(new Set([503]))
        process.kill(pidOf(api, 2), 'SIGCONT')
        expect(statuses(await read())).toEqual(new Set([200]))
      })
    },
    60_000,
  )
})

describe.each(['1', '3'])('the log of WORKERS=%s', WORKERS => {
  let folder: string
  let pipe: string
  let ends: number[] = []
  let api: Bun.Subprocess | undefined
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'todo-api-workers-'))
    pipe = join(folder, 'log')
    Bun.spawnSync(['mkfifo', pipe])
    // The first end is not read from: it lets the second one open without a reader.
    ends = [openSync(pipe, 'r+'), openSync(pipe, 'w')]
  })
  afterEach(() => {
    api?.kill('SIGKILL')
    closeEnds()
    rmSync(folder, { recursive: true })
  })
  const closeEnds = () => {
    for (const end of ends.splice(0)) closeSync(end)
  }

  /** Starts a service that writes its log into the pipe, which is not read. */
  async function startUnread() {
    const port = await freePort()
    const metricsPort = await freePort()
    const child = Bun.spawn([await executablePath(), 'serve'], {
      env: {
        PATH: process.env.PATH,
        ...settings(),
        PORT: String(port),
        METRICS_PORT: String(metricsPort),
        WORKERS,
      },
      stdio: ['ignore', ends[1]!, 'inherit'],
    })
    api = child
    const processes = WORKERS === '1' ? 0 : Number(WORKERS)
    await until(async () => (await isListening(port)) && descendants(child.pid).length === processes)
    await until(async () => (await fetch(`http://127.0.0.1:${port}/health/ready`)).ok)
    await Bun.sleep(500)
    return {
      child,
      /** Calls it once for each id. */
      async call(ids: string[]) {
        const rest = [...ids]
        const clients = Array.from({ length: 30 }, async () => {
          for (let id = rest.pop(); id; id = rest.pop()) {
            const headers = { 'x-request-id': id, connection: 'close' }
            expect((await fetch(`http://127.0.0.1:${port}/health`, { headers })).status).toBe(200)
          }
        })
        await Promise.all(clients)
        await Bun.sleep(200)
      },
      /** How many lines were dropped, when there are no more to come. */
      async dropped() {
        for (let before = -1; ; await Bun.sleep(200)) {
          const metrics = await fetch(`http://127.0.0.1:${metricsPort}/metrics`)
          const { samples } = readPrometheus(await metrics.text()).get('log_lines_dropped_total')!
          const now = samples.reduce((sum, { value }) => sum + value, 0)
          if (now === before) return now
          before = now
        }
      },
    }
  }

  /** Reads the pipe to its end: what was written. */
  function readAll() {
    const end = openSync(pipe, 'r')
    const reader = Bun.spawn(['cat'], { stdin: end, stdout: 'pipe' })
    closeEnds()
    closeSync(end)
    return new Response(reader.stdout).text().then(text =>
      text
        .trimEnd()
        .split('\n')
        .map(line => JSON.parse(line)),
    )
  }

  const newIds = (count: number) =>
    Array.from({ length: count }, () => `${crypto.randomUUID()}.${'x'.repeat(90)}`)

  test('has every line whole, also when its reader is slow', async () => {
    // Less than 1 MiB, and more than a pipe holds.
    const ids = newIds(2500)
    const { child, call, dropped } = await startUnread()
    await call(ids)
    expect(await dropped()).toBe(0)

    const reading = readAll()
    child.kill('SIGTERM')
    const lines = await reading

    expect(await child.exited).toBe(0)
    const requests = lines.filter(line => line.msg === 'request' && line.route === '/health')
    expect(requests.map(line => line.request_id).sort()).toEqual(ids.sort())
    expect(new Set(requests.map(line => line.worker))).toEqual(
      new Set(WORKERS === '1' ? [undefined] : [1, 2, 3]),
    )
  }, 60_000)

  test('that is not read drops lines, counts them, and says so when it is read again', async () => {
    const ids = newIds(9000 + 4500 * Number(WORKERS))
    const { child, call, dropped } = await startUnread()
    await call(ids)
    const count = await dropped()
    expect(count).toBeGreaterThan(4000)

    const reading = readAll()
    await Bun.sleep(500)
    child.kill('SIGTERM')
    const lines = await reading

    expect(await child.exited).toBe(0)
    const requests = lines.filter(line => line.msg === 'request' && line.route === '/health')
    const reports = lines.filter(line => line.msg === 'log lines dropped')
    const reported = reports.reduce((sum, line) => sum + line.count, 0)
    expect(reported).toBe(count)
    expect(requests.length).toBe(ids.length - count)
    expect(lines.filter(line => line.msg === 'stopped')).toHaveLength(Number(WORKERS))
  }, 60_000)

  test('that is not read does not keep the service from stopping', async () => {
    const { child, call } = await startUnread()
    await call(newIds(2500))

    child.kill('SIGTERM')
    expect(await child.exited).toBe(0)
  }, 60_000)

  test('whose reader has gone costs lines and nothing else', async () => {
    const { child, call, dropped } = await startUnread()
    closeEnds()
    await call(newIds(100))
    await call(newIds(100))

    // What the pipe held at that time was lost, too.
    expect(await dropped()).toBeGreaterThanOrEqual(200)
    child.kill('SIGTERM')
    expect(await child.exited).toBe(0)
  }, 60_000)
})

describe('a start', () => {
  const inUse = (port: unknown) =>
    `127.0.0.1:${port} is in use by another process: stop it, or set PORT to a free port\n`

  test('on an empty database migrates once and makes one secret', async () => {
    const empty = await emptyDatabase()
    const env = { DATABASE_URL: empty.url, SECRET_KEY: undefined, WORKERS: '4' }
    try {
      await withWorkers(env, async api => {
        const { token } = await api.user()
        const answers = await overNewConnections(api, 80, '/users/me', token)

        expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
        expect(await answeredBy(api, '/api/v1/users/me', 200)).toEqual([1, 2, 3, 4])
        const last = migrations.at(-1)!.tag
        expect(events(api, 'migrated')).toMatchObject([{ applied: migrations.length, last }])
        expect(readdirSync(join(api.folder, 'data'))).toEqual(['secret_key'])
        // A worker that comes later has the same one.
        rmSync(join(api.folder, 'data', 'secret_key'))
        process.kill(events(api, 'listening')[0].pid, 'SIGKILL')
        await until(() => events(api, 'listening').length === 5)
        const later = await overNewConnections(api, 80, '/users/me', token)
        expect(new Set(later.map(({ status }) => status))).toEqual(new Set([200]))
      })
    } finally {
      await empty.drop()
    }
  }, 60_000)

  test('is refused when the port has workers already, and they go on', async () => {
    await withWorkers({}, async api => {
      const { port } = new URL(api.url)
      for (const WORKERS of ['2', '1']) {
        const outcome = await runCommand(['serve'], { env: { ...settings(), PORT: port, WORKERS } })
        expect(outcome).toEqual({ exitCode: 1, stdout: '', stderr: inUse(port) })
      }
      expect(await overNewConnections(api, 10, '/health')).toHaveLength(10)
    })
  }, 60_000)

  test('is refused when another begins in the same instant', async () => {
    const port = await freePort()
    const copies = await Promise.all(
      Array.from({ length: 4 }, async () =>
        Bun.spawn([await executablePath(), 'serve'], {
          env: { PATH: process.env.PATH, ...settings(), PORT: String(port) },
          stdio: ['ignore', 'ignore', 'pipe'],
        }),
      ),
    )
    try {
      await until(() => copies.filter(copy => copy.exitCode === null).length === 1)
      const refused = copies.filter(copy => copy.exitCode !== null)
      for (const copy of refused) {
        expect([copy.exitCode, await new Response(copy.stderr).text()]).toEqual([1, inUse(port)])
      }
      await until(() => isListening(port))
    } finally {
      for (const copy of copies) copy.kill('SIGTERM')
      await Promise.all(copies.map(copy => copy.exited))
    }
  }, 60_000)

  test.each(['1', '2'])(
    'ends with the message, the last lines and the exit code of one process when the database refuses (WORKERS=%s)',
    async WORKERS => {
      const url = new URL(database.directUrl)
      url.pathname = '/no_such_database'
      const env = { ...settings(), DATABASE_URL: url.href, PORT: '0', WORKERS }
      const outcome = await runCommand(['serve'], { env })

      expect(outcome.exitCode).toBe(1)
      expect(outcome.stderr).toBe('the database is unavailable: database "no_such_database" does not exist\n')
      expect(outcome.stdout).toContain('"msg":"stopped"')
      const ended = outcome.stdout.split('\n').filter(line => line.includes('"msg":"worker ended"'))
      expect(ended).toHaveLength(Number(WORKERS) - 1)
      expect(ended.filter(line => line.includes('again_in_ms'))).toEqual([])
    },
    60_000,
  )

  test('obeys a signal before it is over', async () => {
    const child = Bun.spawn([await executablePath(), 'serve'], {
      env: { PATH: process.env.PATH, PORT: '0', ...settings(), DATABASE_URL: 'postgres://x@127.0.0.1:1/x' },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await child.stdout.getReader().read()
    child.kill('SIGTERM')

    expect(await child.exited).toBe(0)
  }, 60_000)

  test.each([
    [
      { DATABASE_URL: undefined, ALGORITHM: 'none' },
      ['WORKERS over 1 needs DATABASE_URL', 'ALGORITHM must be one of'],
    ],
    [{ WORKERS: '0' }, ['WORKERS must be a whole number from 1 to 64']],
    [{ WORKERS: 'many' }, ['WORKERS must be a whole number from 1 to 64']],
  ])('with %p is refused with every mistake', async (env, mistakes) => {
    const { exitCode, stderr } = await runCommand(['serve'], { env: { ...settings(), ...env } })

    expect(exitCode).toBe(2)
    for (const mistake of mistakes) expect(stderr).toContain(mistake)
  })

  test('is judged by doctor, and config shows the setting', async () => {
    const doctor = async (WORKERS: string) =>
      (await runCommand(['doctor'], { env: { ...settings(), WORKERS } })).stdout
    const config = await runCommand(['config', '--json'], { env: settings() })

    expect(await doctor('1')).not.toContain('workers')
    expect(await doctor('2')).toMatch(/up to 20 of \d+ connections a replica/)
    expect(await doctor(String(availableParallelism()))).not.toContain('lower WORKERS')
    expect(await doctor('64')).toMatch(/^warn {2}workers {6}64 on \d+ cores?; lower WORKERS/m)
    expect(config.stdout).toContain('{"name":"WORKERS","value":"2","from":"environment"}')
  }, 60_000)

  test('of a worker by hand is refused', async () => {
    const { exitCode, stderr } = await runCommand(['worker'], { env: settings() })
    expect([exitCode, stderr]).toEqual([2, '`worker` is started by `serve`\n'])
  })
})

test('a worker that comes later is of the same version and has the same settings', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'todo-api-workers-'))
  const file = join(folder, 'todo-api')
  const secret = join(folder, 'secret')
  linkSync(await executablePath(), file)
  await Bun.write(secret, `${settings().SECRET_KEY}\n`)
  const env = {
    ...settings(),
    SECRET_KEY: undefined,
    SECRET_KEY_FILE: secret,
    PORT: String(await freePort()),
  }
  const child = Bun.spawn([file, 'serve'], {
    cwd: folder,
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    let log = ''
    const started = async (count: number) => {
      for (;;) {
        const lines = log
          .split('\n')
          .slice(0, -1)
          .map(line => JSON.parse(line))
        const found = lines.filter(line => line.msg === 'listening')
        if (found.length >= count) return found
        log += new TextDecoder().decode((await reader.read()).value)
      }
    }
    const reader = child.stdout.getReader()
    const [one, two] = await started(2)
    // What an upgrade does before it restarts the service.
    rmSync(file)
    await Bun.write(file, '#!/bin/sh\nexit 1\n')
    await Bun.write(secret, 'another-secret-another-secret-another-012')
    process.kill(one.pid, 'SIGKILL')
    await started(3)
    process.kill(two.pid, 'SIGKILL')
    const [, , , last] = await started(4)

    expect(last.worker).toBe(2)
    const environment = readFileSync(`/proc/${last.pid}/environ`, 'utf8')
    expect(environment).not.toContain(settings().SECRET_KEY!)
    const commandLine = readFileSync(`/proc/${last.pid}/cmdline`, 'utf8')
    expect(commandLine).toBe('/proc/self/exe\0worker\0')
    const api = await startExecutable({ ...settings(), WORKERS: '1' })
    const { token } = await api.user()
    await api.stop()
    const answer = await fetch(`http://127.0.0.1:${env.PORT}/api/v1/users/me`, {
      headers: { authorization: `Bearer ${token}` },
    })
    expect(answer.status).toBe(200)
    child.kill('SIGTERM')
    expect(await child.exited).toBe(0)
  } finally {
    child.kill('SIGKILL')
    rmSync(folder, { recursive: true })
  }
}, 60_000)
