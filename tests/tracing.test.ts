import { afterAll, beforeAll, describe, expect, jest, spyOn, test } from 'bun:test'
import { diag } from '@opentelemetry/api'
import { Elysia } from 'elysia'
import { version } from '../package.json'
import { type Env, parseConfig } from '../src/config/config.ts'
import { createLog } from '../src/telemetry/log.ts'
import { createTracing, samplerOf } from '../src/telemetry/tracing.ts'
import { type Running, startExecutable, untilReady } from './support/executable.ts'
import { stopwatch } from './support/stopwatch.ts'
import { type PrivateDatabase, privateDatabase } from './support/template.ts'
import { until } from './support/until.ts'

interface Span {
  traceId: string
  spanId: string
  parentSpanId?: string
  name: string
  kind: number
  startTimeUnixNano: string
  endTimeUnixNano: string
  attributes: Record<string, unknown>
  status: { code?: number }
}

type Attribute = { key: string; value: Record<string, unknown> & { arrayValue?: { values: object[] } } }

interface Otlp {
  resourceSpans: {
    resource: { attributes: Attribute[] }
    scopeSpans: { spans: (Omit<Span, 'attributes'> & { attributes: Attribute[] })[] }[]
  }[]
}

const server = 2
const client = 3
const hex = (bytes: number) => Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString('hex')

/** What an OpenTelemetry collector does with `POST /v1/traces`: OTLP in its JSON form. */
function startCollector() {
  const spans: Span[] = []
  const seen = { resource: {} as Record<string, unknown>, headers: new Headers(), raw: '' }
  const listener = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    routes: {
      '/v1/traces': {
        async POST(request) {
          const body = (await request.json()) as Otlp
          seen.raw += JSON.stringify(body)
          seen.headers = request.headers
          for (const { resource, scopeSpans } of body.resourceSpans) {
            seen.resource = read(resource.attributes)
            for (const { spans: some } of scopeSpans) {
              for (const span of some) spans.push({ ...span, attributes: read(span.attributes) })
            }
          }
          return Response.json({ partialSuccess: {} })
        },
      },
    },
    fetch: () => new Response(null, { status: 404 }),
  })
  return {
    seen,
    spans,
    url: listener.url.href.replace(/\/$/, ''),
    stop: () => listener.stop(true),
    /** The spans of a trace, as soon as the one of the request is among them. */
    async trace(traceId: string): Promise<{ request: Span; statements: Span[] }> {
      for (let i = 0; i < 250; i++) {
        const own = spans.filter(span => span.traceId === traceId)
        const request = own.find(span => span.kind === server)
        if (request) return { request, statements: own.filter(span => span.kind === client) }
        await Bun.sleep(20)
      }
      throw new Error(`no trace ${traceId}`)
    },
  }
}

const read = (attributes: Attribute[]) =>
  Object.fromEntries(
    attributes.map(({ key, value }) => [
      key,
      value.arrayValue
        ? value.arrayValue.values.map(item => Object.values(item)[0])
        : Object.values(value)[0],
    ]),
  )

describe('the executable, with a collector', () => {
  const collector = startCollector()
  let database: PrivateDatabase
  let api: Running
  beforeAll(async () => {
    database = await privateDatabase()
    api = await startExecutable({
      DATABASE_URL: database.url,
      ENVIRONMENT: 'test',
      BCRYPT_COST: '4',
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_EXPORTER_OTLP_HEADERS: 'x-tenant=acme',
      OTEL_SERVICE_NAME: 'todo',
      OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=lab',
      OTEL_BSP_SCHEDULE_DELAY: '100',
    })
    await untilReady(api)
  })
  afterAll(async () => {
    await api?.stop()
    await database?.drop()
    collector.stop()
  })

  /** A call with a trace of its own, and what became of that. */
  async function traced(method: string, path: string, sent: Parameters<Running['request']>[2] = {}) {
    const traceId = hex(16)
    const parent = hex(8)
    const traceparent = `00-${traceId}-${parent}-01`
    const answer = await api.request(method, path, { ...sent, headers: { ...sent.headers, traceparent } })
    return { answer, parent, traceId, ...(await collector.trace(traceId)) }
  }

  test('a request is a span in the trace of its caller, its statements are spans inside', async () => {
    const ada = await api.user()

    const { answer, parent, request, statements } = await traced('POST', '/tasks?_x=1', {
      token: ada.token,
      json: { title: 'Buy milk' },
    })

    expect(request).toMatchObject({ name: 'POST /api/v1/tasks', kind: server, parentSpanId: parent })
    expect(request.attributes).toEqual({
      'http.request.method': 'POST',
      'http.route': '/api/v1/tasks',
      'http.response.status_code': 201,
      'http.response.header.x-request-id': [answer.headers.get('x-request-id')],
    })
    const write = statements.find(span => span.name.startsWith('update'))!
    expect(write.parentSpanId).toBe(request.spanId)
    expect(write.attributes).toMatchObject({ 'db.system.name': 'postgresql', 'db.operation.name': 'update' })
    expect(BigInt(write.startTimeUnixNano)).toBeGreaterThanOrEqual(BigInt(request.startTimeUnixNano))
    // OpenTelemetry lets a span begin at a whole millisecond, and its end follows from that.
    const millisecond = 1_000_000n
    expect(BigInt(write.endTimeUnixNano)).toBeLessThan(BigInt(request.endTimeUnixNano) + millisecond)
  })

  test('the access line names the trace', async () => {
    const { answer, traceId } = await traced('GET', '/nope')

    const line = await lineWith(api, answer.headers.get('x-request-id')!)
    expect(line).toMatchObject({ status: 404, trace_id: traceId })
  })

  test('without a trace from outside, or with a broken one, a new one begins', async () => {
    for (const traceparent of [undefined, 'nonsense', `00-${'0'.repeat(32)}-${hex(8)}-01`]) {
      const answer = await api.get('/tasks', { headers: { ...(traceparent && { traceparent }) } })
      const id = answer.headers.get('x-request-id')
      const line = await lineWith(api, id!)
      const { request } = await collector.trace(line.trace_id)

      expect(line.trace_id).toMatch(/^(?!0+$)[0-9a-f]{32}$/)
      expect(request.parentSpanId).toBeFalsy()
      expect(request.attributes['http.response.status_code']).toBe(401)
    }
  })

  test('what the caller does not want to be kept is not sent', async () => {
    const traceId = hex(16)
    const before = collector.spans.length
    const { headers } = await api.get('/tasks', { headers: { traceparent: `00-${traceId}-${hex(8)}-00` } })
    // A later one that is sent.
    await traced('GET', '/tasks')

    expect((await lineWith(api, headers.get('x-request-id')!)).trace_id).toBe(traceId)
    expect(collector.spans.slice(before).filter(span => span.traceId === traceId)).toEqual([])
  })

  test('a hundred requests at once keep their statements apart', async () => {
    const users = await Promise.all([api.user(), api.user()])

    const results = await Promise.all(
      Array.from({ length: 100 }, (_, i) =>
        traced('POST', '/tasks', { token: users[i % 2]!.token, json: { title: `${i}` } }),
      ),
    )

    for (const { request, statements } of results) {
      expect(statements.filter(span => span.name.startsWith('update user_versions'))).toHaveLength(1)
      expect(statements.every(span => span.parentSpanId === request.spanId)).toBe(true)
    }
  })

  test('batches at once keep their statements apart, also when they have waited for each other', async () => {
    const users = await Promise.all(Array.from({ length: 10 }, () => api.user()))

    const results = await Promise.all(
      Array.from({ length: 40 }, (_, i) => {
        const id = crypto.randomUUID()
        const updates = Array.from({ length: i % 3 }, (_, j) => ({
          op: 'update',
          id,
          task: { title: `${j}` },
        }))
        const json = { operations: [{ op: 'create', id, task: { title: 'new' } }, ...updates] }
        return traced('POST', '/tasks/batch', { token: users[i % 10]!.token, json })
      }),
    )

    const count = (statements: Span[], text: string) =>
      statements.filter(({ attributes }) => `${attributes['db.query.text']}`.includes(text)).length
    const counts = results.map(({ statements }) =>
      ['insert into "tasks"', 'update "tasks"'].map(text => count(statements, text)),
    )
    expect(counts).toEqual(results.map((_, i) => [1, i % 3]))
    for (const { request, statements } of results)
      expect(statements.every(span => span.parentSpanId === request.spanId)).toBe(true)
  })

  test('a failure is marked, by its code alone', async () => {
    const email = `geheim-${hex(4)}@example.com`
    const json = { email, password: 'geheim geheim' }
    await traced('POST', '/auth/register', { json })

    const { answer, request, statements } = await traced('POST', '/auth/register', { json })

    expect(answer.status).toBe(400)
    expect(request.status.code ?? 0).toBe(0)
    const failed = statements.find(span => span.name === 'insert users')!
    expect(failed.status.code).toBe(2)
    expect(failed.attributes['error.type']).toBe('23505')
  })

  test('nothing that a user sent is in any of it', async () => {
    const ada = await api.user(`geheim-${hex(4)}@example.com`, 'geheim geheim')
    const task = await api.task(ada, { title: 'geheim', tags: ['geheim'] })
    await api.get('/tasks?q=geheim&tag=geheim', { token: ada.token })
    await api.get('/tasks/geheim', { token: ada.token })
    await api.patch(`/tasks/${task.id}`, { token: ada.token, json: { description: 'geheim' } })
    await traced('GET', '/tasks', { token: ada.token, headers: { 'user-agent': 'geheim' } })

    expect(collector.seen.raw).toContain('select')
    for (const secret of ['geheim', ada.token, ada.refreshToken, ada.id, task.id]) {
      expect(collector.seen.raw).not.toContain(secret)
    }
  })

  test('probes leave no traces', async () => {
    const traceId = hex(16)
    const headers = { traceparent: `00-${traceId}-${hex(8)}-01` }
    await api.get('/health', { headers })
    await api.get('/health/ready', { headers })
    await api.get(`${api.url}/metrics`, { headers })
    await traced('GET', '/tasks')

    expect(collector.spans.filter(span => span.traceId === traceId)).toEqual([])
    // Nor do their statements, or those of background work, of their own.
    expect(collector.spans.filter(span => span.kind === client && !span.parentSpanId)).toEqual([])
  })

  test('the usual variables say who we are and what goes along', async () => {
    await traced('GET', '/tasks')

    expect(collector.seen.resource).toMatchObject({
      'service.name': 'todo',
      'service.version': expect.any(String),
      'deployment.environment.name': 'lab',
      'telemetry.sdk.name': 'opentelemetry',
    })
    expect(collector.seen.headers.get('x-tenant')).toBe('acme')
    expect(collector.seen.headers.get('content-type')).toBe('application/json')
  })
})

describe('in this process,', () => {
  const lines: string[] = []
  const log = createLog({ level: 'info', pretty: false, write: text => void lines.push(text) })
  const endpoint = 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT'

  /** Traces of requests that are answered with these statuses, for the collector at `url`. */
  async function trace(url: string, statuses: number[], variables: Record<string, string> = {}) {
    const env = { [endpoint]: url, ...variables }
    const { requests, observe, stop } = createTracing({ env, version: '1', log })
    for (const name of Object.keys(env)) delete process.env[name]
    const app = new Elysia().use(requests).get('/:status', ({ params }) => {
      const status = Number(params.status)
      observe({
        requestId: 'x',
        method: 'GET',
        route: `/${status}`,
        status,
        userId: undefined,
        milliseconds: 1,
      })
    })
    for (const status of statuses) await app.handle(new Request(`http://localhost/${status}`))
    return { stop }
  }

  test('a request is a failure from 500 on', async () => {
    const collector = startCollector()
    const { stop } = await trace(`${collector.url}/v1/traces`, [499, 500])
    await stop()
    collector.stop()

    expect(collector.spans.map(({ name, status }) => [name, status.code ?? 0])).toEqual([
      ['GET /499', 0],
      ['GET /500', 2],
    ])
  })

  test('how many spans wait for how long is for the variables to say; else the standard does', async () => {
    const sizes: number[] = []
    const answered = Promise.withResolvers<void>()
    const collector = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      async fetch(request) {
        const { resourceSpans } = (await request.json()) as Otlp
        sizes.push(resourceSpans[0]!.scopeSpans[0]!.spans.length)
        await answered.promise
        return Response.json({})
      },
    })
    const timers = spyOn(globalThis, 'setTimeout')
    const usual = await trace(collector.url.href, [200])
    const { stop } = await trace(collector.url.href, Array(7).fill(200), {
      OTEL_BSP_SCHEDULE_DELAY: '60001',
      OTEL_BSP_EXPORT_TIMEOUT: '60002',
      OTEL_BSP_MAX_EXPORT_BATCH_SIZE: '2',
      OTEL_BSP_MAX_QUEUE_SIZE: '3',
    })
    answered.resolve()
    await Promise.all([usual.stop(), stop()])
    const delays = timers.mock.calls.map(([, delay]) => delay)
    timers.mockRestore()
    await collector.stop(true)

    expect(delays).toEqual(expect.arrayContaining([5000, 30_000, 60_001, 60_002]))
    // Two at once; three of the others while those are under way. And the usual one.
    expect(sizes.sort()).toEqual([1, 1, 2, 2])
  })

  test('a collector that does not answer delays the end by two seconds', async () => {
    const silent = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: () => new Promise<Response>(() => {}) })
    const { stop } = await trace(silent.url.href, [200])
    jest.useFakeTimers()
    let isStopped = false
    void stop().then(() => {
      isStopped = true
    })
    const seen = []
    for (const milliseconds of [1999, 1]) {
      jest.advanceTimersByTime(milliseconds)
      for (let i = 0; i < 30; i++) await Promise.resolve()
      seen.push(isStopped)
    }
    jest.useRealTimers()
    await silent.stop(true)

    expect(seen).toEqual([false, true])
  })

  test('what the SDK complains about is a short warning, once a minute', async () => {
    const clock = spyOn(performance, 'now').mockReturnValue(0)
    const { stop } = await trace('http://127.0.0.1:1', [])
    lines.length = 0
    for (const [at, level, message] of [
      [60_000, 'warn', 'x'.repeat(1000)],
      [60_500, 'error', 'not seen'],
      [119_999, 'error', 'not seen'],
      [120_000, 'error', JSON.stringify({ stack: 'Error: connect', message: 'connect ECONNREFUSED' })],
      [180_000, 'info', 'not seen'],
    ] as const) {
      clock.mockReturnValue(at)
      diag[level](message)
    }
    clock.mockRestore()
    await stop()

    const warning = { level: 'warn', msg: 'traces are lost' }
    expect(lines.map(line => JSON.parse(line))).toMatchObject([
      { ...warning, reason: 'x'.repeat(300) },
      { ...warning, reason: 'connect ECONNREFUSED' },
    ])
  })

  test.each([
    [undefined, undefined, 'ParentBased{root=TraceIdRatioBased{1}'],
    ['nonsense', '0', 'ParentBased{root=TraceIdRatioBased{1}'],
    ['always_on', '0', 'TraceIdRatioBased{1}'],
    ['always_off', '1', 'TraceIdRatioBased{0}'],
    ['traceidratio', '0.25', 'TraceIdRatioBased{0.25}'],
    ['traceidratio', 'many', 'TraceIdRatioBased{1}'],
    ['parentbased_always_off', undefined, 'ParentBased{root=TraceIdRatioBased{0}'],
    ['parentbased_traceidratio', '0.5', 'ParentBased{root=TraceIdRatioBased{0.5}'],
  ])('the sampler %p with the argument %p is %s', (sampler, argument, name) => {
    const env = { OTEL_TRACES_SAMPLER: sampler, OTEL_TRACES_SAMPLER_ARG: argument }

    expect(String(samplerOf(env))).toStartWith(name)
  })
})

test('what has not been sent yet is sent before the end', async () => {
  const collector = startCollector()
  const api = await startExecutable({
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_BSP_SCHEDULE_DELAY: '60000',
  })
  await api.get('/nope')
  await Bun.sleep(50)
  const before = collector.spans.length
  const code = await api.stop()
  collector.stop()

  expect([before, code]).toEqual([0, 0])
  expect(collector.spans.map(span => span.name)).toContain('GET unknown')
  expect(collector.seen.resource).toMatchObject({ 'service.name': 'todo-api', 'service.version': version })
})

test('a collector that is away costs one warning and no request', async () => {
  const api = await startExecutable({
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1',
    OTEL_EXPORTER_OTLP_TIMEOUT: '500',
    OTEL_BSP_SCHEDULE_DELAY: '50',
  })
  const isWarning = (line: string) => line.includes('"traces are lost"')
  await until(async () => {
    expect((await api.get('/nope')).status).toBe(404)
    return api.lines.some(isWarning)
  })
  for (let i = 0; i < 10; i++) {
    expect((await api.get('/nope')).status).toBe(404)
    await Bun.sleep(20)
  }
  const elapsed = stopwatch(api.process.pid)
  const code = await api.stop()

  expect(code).toBe(0)
  expect(elapsed()).toBeLessThan(5000)
  const warnings = api.lines.filter(isWarning).map(line => JSON.parse(line))
  expect(warnings).toMatchObject([{ reason: expect.not.stringContaining('{') }])
}, 30_000)

test('a sampler may be chosen', async () => {
  const collector = startCollector()
  const api = await startExecutable({
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${collector.url}/v1/traces`,
    OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
    OTEL_TRACES_SAMPLER_ARG: '0',
  })
  const traceId = hex(16)
  await api.get('/nope')
  await api.get('/nope', { headers: { traceparent: `00-${traceId}-${hex(8)}-01` } })
  await Bun.sleep(50)
  await api.stop()
  collector.stop()

  expect(collector.spans.map(span => span.traceId)).toEqual([traceId])
})

test('traces are off unless the variables ask for them', () => {
  const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://localhost:4318' }

  expect(parseConfig({}).tracing).toBeUndefined()
  expect(parseConfig({ OTEL_SERVICE_NAME: 'todo' }).tracing).toBeUndefined()
  for (const OTEL_SDK_DISABLED of ['true', 'TRUE'])
    expect(parseConfig({ ...endpoint, OTEL_SDK_DISABLED }).tracing).toBeUndefined()
  expect(parseConfig({ ...endpoint, OTEL_TRACES_EXPORTER: 'none' }).tracing).toBeUndefined()
  expect(parseConfig(endpoint).tracing).toEqual(endpoint)
  expect(parseConfig({ OTEL_TRACES_EXPORTER: 'otlp' }).tracing).toEqual({ OTEL_TRACES_EXPORTER: 'otlp' })
})

test.each(['', 'api-key=a%20b', ' a = b==, c=d ,'])('the headers of the collector may be %j', headers => {
  const env = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4318', OTEL_EXPORTER_OTLP_TRACES_HEADERS: headers }
  expect(parseConfig(env).tracing).toEqual(env)
})

test('what is set for traces wins over what is set for all signals', () => {
  const all = { OTEL_EXPORTER_OTLP_ENDPOINT: 'none', OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }
  const own = {
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'http://localhost:4318/v1/traces',
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'http/json',
  }

  expect(parseConfig({ ...all, ...own }).tracing).toEqual({ ...all, ...own })
})

test.each([
  [{ OTEL_TRACES_EXPORTER: 'zipkin' }, 'OTEL_TRACES_EXPORTER must be one of otlp, none'],
  [{ OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4317' }, 'OTEL_EXPORTER_OTLP_ENDPOINT must look like'],
  // Named as it is set: `todo-api config` hides the value of the one that is named.
  [
    { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'Bearer abc', OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4318' },
    'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT must look like',
  ],
  [
    { OTEL_TRACES_EXPORTER: 'otlp', OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'grpc' },
    'OTEL_EXPORTER_OTLP_TRACES_PROTOCOL must be http/json',
  ],
  [
    { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4317', OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' },
    'OTEL_EXPORTER_OTLP_PROTOCOL must be http/json',
  ],
  ...['Authorization: Basic dXNlcjpnZWhlaW0=', 'authorization Bearer geheim', 'a=b,geheim'].map(headers => [
    { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4318', OTEL_EXPORTER_OTLP_HEADERS: headers },
    /^Settings:\n {2}OTEL_EXPORTER_OTLP_HEADERS must look like name=value,name=value$/,
  ]),
] as [Env, string | RegExp][])('the variables %p are refused', (env, mistake) => {
  expect(() => parseConfig(env)).toThrow(mistake)
})

async function lineWith({ lines }: Running, requestId: string) {
  for (let i = 0; i < 100; i++) {
    const line = lines.map(line => JSON.parse(line)).find(line => line.request_id === requestId)
    if (line) return line
    await Bun.sleep(20)
  }
  throw new Error(`no access line for ${requestId}`)
}
