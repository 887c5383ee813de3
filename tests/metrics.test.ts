import { afterAll, beforeAll, describe, expect, jest, spyOn, test } from 'bun:test'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseConfig } from '../src/config/config.ts'
import { readKind } from '../src/db/instrumented-driver.ts'
import { serveMetrics } from '../src/http/metrics-endpoint.ts'
import { createLog } from '../src/telemetry/log.ts'
import { createMetrics } from '../src/telemetry/metrics.ts'
import { type Running, startExecutable } from './support/executable.ts'
import { onBothDatabases, type Service, startService } from './support/harness.ts'
import { readPrometheus, sampled } from './support/prometheus.ts'
import { until } from './support/until.ts'
import { expectError, send } from './support/wire.ts'

const token = 'metrics-token-metrics-token'

const scrape = async (api: Service) => {
  const answer = await api.get(`${api.url}/metrics`, { token })
  expect([answer.status, answer.headers.get('content-type')]).toEqual([
    200,
    'text/plain; version=0.0.4; charset=utf-8',
  ])
  return readPrometheus(answer.body)
}

onBothDatabases(
  'metrics',
  api => {
    test('need the token, after its scheme in any case, and are no part of the API’s document', async () => {
      const { paths } = (await api.get(`${api.url}/openapi.json`)).body
      const anonymous = await api.get(`${api.url}/metrics`)
      const stranger = await api.get(`${api.url}/metrics`, { token: `${token}x` })
      const { token: ada } = await api.user()
      const user = await api.get(`${api.url}/metrics`, { token: ada })

      expectError(anonymous, 401, 'not_authenticated', 'Not authenticated')
      expectError(stranger, 401, 'invalid_token', 'Could not validate credentials')
      expectError(user, 401, 'invalid_token', 'Could not validate credentials')
      expect(paths).not.toContainKey('/metrics')
      for (const authorization of [`bearer ${token}`, `BEARER  ${token}`])
        expect((await api.get(`${api.url}/metrics`, { headers: { authorization } })).status).toBe(200)
      for (const authorization of [token, `Basic ${token}`, 'Bearer '])
        expect((await api.get(`${api.url}/metrics`, { headers: { authorization } })).status).toBe(401)
    })

    test('are a text that a strict reader takes, with everything in it', async () => {
      await api.user()
      const families = await scrape(api)

      const types = Object.fromEntries([...families].map(([name, { type }]) => [name, type]))
      expect(types).toEqual({
        http_requests_total: 'counter',
        http_request_duration_seconds: 'histogram',
        http_requests_in_flight: 'gauge',
        database_statement_duration_seconds: 'histogram',
        database_connections: 'gauge',
        database_connections_max: 'gauge',
        database_statements_waiting: 'gauge',
        database_up: 'gauge',
        password_hashes_running: 'gauge',
        password_hashes_waiting: 'gauge',
        cached_tokens: 'gauge',
        throttled_requests_total: 'counter',
        event_loop_lag_seconds: 'histogram',
        streams_open: 'gauge',
        stream_entries_sent_total: 'counter',
        stream_wake_ups_total: 'counter',
        streams_too_slow_total: 'counter',
        log_lines_dropped_total: 'counter',
        process_cpu_seconds_total: 'counter',
        process_resident_memory_bytes: 'gauge',
        process_open_fds: 'gauge',
        process_start_time_seconds: 'gauge',
        todo_api_build_info: 'gauge',
      })
      const guide = readFileSync(join(import.meta.dir, '../docs/observability.md'), 'utf8')
      const rows = guide.split('\n## Metrics\n')[1]!.match(/^\| `.*?` \|/gm)!
      const documented = rows.flatMap(row => [...row.matchAll(/`(\w+)`/g)].map(([, name]) => name!))
      expect(documented.filter(name => !name.startsWith('backup')).sort()).toEqual(
        [...families.keys()].sort(),
      )
      expect(sampled(families, 'todo_api_build_info', { database: api.kind, bun: Bun.version })).toBe(1)
      expect(sampled(families, 'process_resident_memory_bytes')).toBeGreaterThan(20e6)
      const limitsOf = (name: string) =>
        new Set(
          families
            .get(name)!
            .samples.flatMap(({ labels }) =>
              labels.le ? Number(labels.le.replace('+Inf', 'Infinity')) : [],
            ),
        )
      const common = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1]
      const all = Number.POSITIVE_INFINITY
      expect(limitsOf('http_request_duration_seconds')).toEqual(new Set([...common, 2.5, 5, all]))
      expect(limitsOf('database_statement_duration_seconds')).toEqual(new Set([0.0005, ...common, 2.5, all]))
      expect(limitsOf('event_loop_lag_seconds')).toEqual(new Set([...common, all]))
      // The one that asks.
      expect(sampled(families, 'http_requests_in_flight')).toBe(1)
    })

    test('count requests by pattern and status, and know no path and no invented method', async () => {
      const ada = await api.user()
      const task = await api.task(ada)
      const labels = { method: 'GET', route: '/api/v1/tasks/:id' }
      const before = await scrape(api)

      for (let i = 0; i < 3; i++) await api.get(`/tasks/${task.id}`, { token: ada.token })
      await api.get('/tasks/geheim', { token: ada.token })
      await api.get('/geheim/geheim')
      await send(api.url, { line: 'GEHEIM /geheim' })
      await send(api.url, { line: 'PROPFIND /health' })
      const after = await scrape(api)

      const grown = (name: string, labels: Record<string, string>) =>
        sampled(after, name, labels) - sampled(before, name, labels)
      expect(grown('http_requests_total', { ...labels, status: '200' })).toBe(3)
      expect(grown('http_requests_total', { ...labels, status: '404' })).toBe(1)
      expect(grown('http_request_duration_seconds_count', labels)).toBe(4)
      expect(grown('http_request_duration_seconds_sum', labels)).toBeGreaterThan(0)
      expect(grown('http_requests_total', { method: 'other', status: '405' })).toBe(1)
      expect(JSON.stringify([...after]).toLowerCase()).not.toMatch(/geheim|propfind/)
      expect(JSON.stringify([...after])).not.toContain(task.id)
    })

    test('tell how the database does', async () => {
      const ada = await api.user()
      const before = await scrape(api)

      await Promise.all(Array.from({ length: 20 }, () => api.task(ada)))
      const after = await scrape(api)

      const writes = { operation: 'update', outcome: 'ok' }
      const count = (families: typeof after) =>
        sampled(families, 'database_statement_duration_seconds_count', writes)
      expect(count(after) - count(before)).toBeGreaterThanOrEqual(20)
      const connections = (state: string) => sampled(after, 'database_connections', { state })
      const open = connections('in_use') + connections('idle')
      expect(open).toBeGreaterThan(0)
      expect(open + connections('opening')).toBeLessThanOrEqual(sampled(after, 'database_connections_max'))
      expect(sampled(after, 'database_statements_waiting')).toBe(0)
      expect(sampled(after, 'database_up')).toBe(1)
      expect(sampled(after, 'cached_tokens') - sampled(before, 'cached_tokens')).toBe(1)
    })

    test('count what a limit refused', async () => {
      const ada = await api.user()
      const login = () =>
        api.post('/auth/login', { form: { username: ada.email, password: 'wrong password' } })

      const statuses = []
      for (let i = 0; i < 4; i++) statuses.push((await login()).status)
      const families = await scrape(api)

      expect(statuses).toEqual([401, 401, 401, 429])
      expect(sampled(families, 'throttled_requests_total', { limit: 'account' })).toBe(1)
      expect(sampled(families, 'throttled_requests_total', { limit: 'login' })).toBe(0)
    })
  },
  { METRICS_TOKEN: token, LOGIN_FAILURE_LIMIT: '2' },
)

test('the queue of password hashes is seen while it is there', async () => {
  const api = await startService('embedded', { METRICS_TOKEN: token, BCRYPT_COST: '12' })
  const json = (i: number) => ({ email: `${i}@example.com`, password: 'correct horse' })

  const length = parseConfig({}).hashing.atOnce + 3
  const registrations = Array.from({ length }, (_, i) => api.post('/auth/register', { json: json(i) }))
  await until(async () => {
    const during = await scrape(api)
    return ['running', 'waiting'].every(state => sampled(during, `password_hashes_${state}`)! > 0)
  })
  await Promise.all(registrations)
  const after = await scrape(api)
  await api.stop()

  expect(sampled(after, 'password_hashes_running')).toBe(0)
  expect(sampled(after, 'password_hashes_waiting')).toBe(0)
})

test('a pause of the event loop is seen once, as long as it was; an early timer is none', async () => {
  const [clock, timers] = [spyOn(performance, 'now').mockReturnValue(0), spyOn(globalThis, 'setInterval')]
  try {
    const metrics = createMetrics({ version: '1', database: 'postgres' })
    const [tick, everyMs] = timers.mock.lastCall as unknown as [() => void, number]
    for (const at of [100, 700, 800, 901, 1000]) {
      clock.mockReturnValue(at)
      tick()
    }
    const families = readPrometheus(await metrics.text())
    await metrics.stop()

    expect(everyMs).toBe(100)
    expect(sampled(families, 'event_loop_lag_seconds_count')).toBe(5)
    expect(sampled(families, 'event_loop_lag_seconds_sum')).toBeCloseTo(0.501, 9)
  } finally {
    clock.mockRestore()
    timers.mockRestore()
  }
})

describe('what is measured', () => {
  test('is what its source says at each scrape, under its name', async () => {
    const { setSources, text, stop } = createMetrics({ version: '1', database: 'postgres' })
    const state = { away: false }
    setSources({
      inFlight: () => 1,
      database: () => ({ size: 2, inUse: 3, idle: 4, opening: 5, waiting: 6, ...state }),
      hashing: () => ({ running: 7, waiting: 8 }),
      throttled: () => ({ login: 9, account: 10 }),
      cachedTokens: () => 11,
      streams: () => ({ open: 12, entriesSent: 13, wakeUps: 14, tooSlow: 15 }),
      logLinesDropped: () => 16,
      backups: () => ({ lastGoodAt: new Date(17_000), outcomes: { ok: 18, failed: 19 } }),
    })
    await text()
    state.away = true
    const files = Array.from({ length: 50 }, () => openSync('/dev/null', 'r'))
    const families = readPrometheus(await text())
    for (const file of files) closeSync(file)
    await stop()

    const shown = (name: string, labels?: Record<string, string>) => sampled(families, name, labels)
    const states = ['in_use', 'idle', 'opening'].map(state => shown('database_connections', { state }))
    expect([shown('http_requests_in_flight'), shown('database_connections_max'), ...states]).toEqual([
      1, 2, 3, 4, 5,
    ])
    expect([shown('database_statements_waiting'), shown('database_up')]).toEqual([6, 0])
    expect([shown('password_hashes_running'), shown('password_hashes_waiting')]).toEqual([7, 8])
    const limits = ['login', 'account'].map(limit => shown('throttled_requests_total', { limit }))
    expect([...limits, shown('cached_tokens'), shown('streams_open')]).toEqual([9, 10, 11, 12])
    const sent = ['stream_entries_sent_total', 'stream_wake_ups_total', 'streams_too_slow_total']
    expect(sent.map(name => shown(name))).toEqual([13, 14, 15])
    expect([shown('log_lines_dropped_total'), shown('backup_last_success_timestamp_seconds')]).toEqual([
      16, 17,
    ])
    expect(['ok', 'failed'].map(outcome => shown('backups_total', { outcome }))).toEqual([18, 19])
    const { user, system } = process.cpuUsage()
    expect((user + system) / 1e6 - shown('process_cpu_seconds_total')).toBeWithin(0, 10)
    const { rss } = process.memoryUsage()
    expect(shown('process_resident_memory_bytes')).toBeWithin(rss / 2, rss * 2)
    const startedAt = Date.now() / 1000 - process.uptime()
    expect(shown('process_start_time_seconds')).toBeWithin(startedAt - 0.5, startedAt + 0.5)
    expect(shown('process_open_fds')).toBeGreaterThan(files.length)
  })

  test('of requests and statements is in seconds, and by outcome', async () => {
    const clock = spyOn(performance, 'now').mockReturnValue(0)
    const { observe, aroundStatement, text, stop } = createMetrics({ version: '1', database: 'postgres' })
    const answered = { requestId: 'x', method: 'GET', route: '/x', status: 200, userId: undefined }
    observe({ ...answered, milliseconds: 250 })
    const select = { operation: 'select', table: 'tasks' } as const
    await aroundStatement(select, '', async () => void clock.mockReturnValue(500))
    const failing = async () => {
      clock.mockReturnValue(2000)
      throw new Error('broken')
    }
    await expect(aroundStatement(select, '', failing)).rejects.toThrow('broken')
    clock.mockRestore()
    const families = readPrometheus(await text())
    await stop()

    const labels = { method: 'GET', route: '/x' }
    expect(sampled(families, 'http_request_duration_seconds_sum', labels)).toBe(0.25)
    const sum = (outcome: string) =>
      sampled(families, 'database_statement_duration_seconds_sum', { operation: 'select', outcome })
    expect([sum('ok'), sum('failed')]).toEqual([0.5, 1.5])
  })

  test('of the event loop is measured until the end', async () => {
    jest.useFakeTimers()
    const { text, stop } = createMetrics({ version: '1', database: 'postgres' })
    jest.advanceTimersByTime(300)
    await stop()
    jest.advanceTimersByTime(300)
    jest.useRealTimers()

    expect(sampled(readPrometheus(await text()), 'event_loop_lag_seconds_count')).toBe(3)
  })
})

test('without the setting there are no metrics', async () => {
  const api = await startService('embedded')
  const answer = await api.get(`${api.url}/metrics`)
  await api.stop()

  expectError(answer, 404, 'not_found', 'Not Found')
})

describe('the executable, with metrics on a port of their own and a database that is away', () => {
  let api: Running
  let url: string
  beforeAll(async () => {
    api = await startExecutable({ METRICS_PORT: '0', DATABASE_URL: 'postgres://nobody@127.0.0.1:1/nothing' })
    url = JSON.parse(await lineOf(api, '"metrics"')).url
  })
  afterAll(async () => void (await api.stop()))

  test('shows them there and nowhere else', async () => {
    await api.get('/tasks', { token: 'x.y.z' })
    const answer = await fetch(url)
    const families = readPrometheus(await answer.text())

    expect(new URL(url).hostname).toBe('127.0.0.1')
    expect(answer.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
    expect(sampled(families, 'http_requests_total', { route: '/api/v1/tasks', status: '401' })).toBe(1)
    expect((await fetch(new URL('/api/v1/tasks', url))).status).toBe(404)
    expect((await api.get(`${api.url}/metrics`)).status).toBe(404)
  })

  test('says that the database is away', async () => {
    await api.get('/health/ready')
    const families = readPrometheus(await (await fetch(url)).text())

    expect(sampled(families, 'database_up')).toBe(0)
    expect(sampled(families, 'database_connections', { state: 'idle' })).toBe(0)
  })
})

test('on a port of their own, metrics that cannot be read are a 503 that says nothing, and a port in use is an error', async () => {
  const lines: string[] = []
  const log = createLog({ level: 'info', pretty: false, write: text => void lines.push(text) })
  const text = () => Promise.reject(new Error('geheim'))
  const serve = (port: number) =>
    serveMetrics({ contentType: 'text/plain', text }, { host: '127.0.0.1', port, token: undefined }, log)
  serve(0)
  log.flush()
  const { url } = JSON.parse(lines.join(''))

  const answer = await fetch(url)

  expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/metrics$/)
  expect([answer.status, await answer.text()]).toEqual([503, ''])
  expect(() => serve(Number(new URL(url).port))).toThrow('set METRICS_PORT to a free port')
})

test('the executable asks for the token on the other port, too', async () => {
  const api = await startExecutable({ METRICS_PORT: '0', METRICS_TOKEN: token })
  const { url } = JSON.parse(await lineOf(api, '"metrics"'))
  const get = async (authorization?: string) => {
    const { status, headers } = await fetch(url, { headers: { ...(authorization && { authorization }) } })
    return [status, headers.get('www-authenticate')]
  }

  const answers = [await get(), await get('Bearer nonsense'), await get(`Bearer ${token}`)]
  await api.stop()

  expect(answers).toEqual([
    [401, 'Bearer'],
    [401, 'Bearer'],
    [200, null],
  ])
})

test('an IPv6 address to listen on may be in brackets', () => {
  const { host, metrics } = parseConfig({ HOST: '[::1]', METRICS_HOST: '[::]', METRICS_PORT: '9000' })
  expect([host, metrics?.host]).toEqual(['::1', '::'])
})

test.each([
  [{ METRICS_HOST: '0.0.0.0' }, 'METRICS_HOST needs METRICS_PORT'],
  [{ METRICS_PORT: '8000' }, 'METRICS_PORT and PORT must differ'],
  [{ METRICS_PORT: 'many' }, 'METRICS_PORT must be a whole number'],
  [{ METRICS_TOKEN: 'geheim' }, 'METRICS_TOKEN must have at least 16 characters'],
])('the settings %p are refused', (env, mistake) => {
  expect(() => parseConfig(env)).toThrow(mistake)
})

test.each([
  ['select id from "users" where id = $1 for update', 'select', 'users'],
  ['insert into "users" (id) values ($1) on conflict (id) do update set id = $1', 'insert', 'users'],
  ['with a as (select 1 from tasks for no key update) delete from "tasks" using a', 'delete', 'tasks'],
  [
    'with b as (update "user_versions" set last_version = 1 returning last_version) select last_version from b',
    'update',
    'user_versions',
  ],
  ['select 1 from "tasks" t for no key update of t', 'select', 'tasks'],
  ['select 1', 'select', undefined],
])('%p is known as %p', (text, operation, table) => {
  expect(readKind(text)).toEqual({ operation, table } as never)
})

async function lineOf({ lines }: Running, text: string): Promise<string> {
  for (let i = 0; i < 200; i++) {
    const line = lines.find(line => line.includes(`"msg":${text}`))
    if (line) return line
    await Bun.sleep(20)
  }
  throw new Error(`no line with ${text}`)
}
