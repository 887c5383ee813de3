import { describe, expect, spyOn, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseConfig } from '../src/config/config.ts'
import { migrations } from '../src/db/migrator.ts'
import { AppError } from '../src/lib/errors.ts'
import { idleSeconds, listen, requestsAtOnce } from '../src/server/listener.ts'
import { isAway, serve } from '../src/server/start.ts'
import { createLog } from '../src/telemetry/log.ts'
import { client } from './support/harness.ts'
import { addEmptyEmbeddedDatabase, emptyDatabase } from './support/template.ts'
import { until } from './support/until.ts'
import { exchange, halfSent } from './support/wire.ts'

describe('at the start', () => {
  const failed = (code: string) => Object.assign(new Error('no'), { code, name: 'PostgresError' })

  test.each([
    ['08006', 'the connection failed'],
    ['53300', 'too many connections'],
    ['57P03', 'the server is starting'],
    ['57P01', 'the server is stopping'],
    ['25006', 'the server is a standby'],
    ['40001', 'a serialization failure'],
    ['40P01', 'a deadlock'],
    ['55P03', 'a table is locked'],
  ])('a database that says %s is waited for: %s', code => {
    expect(isAway(failed(code))).toBe(true)
    expect(isAway(new Error('Failed query', { cause: failed(code) }))).toBe(true)
  })

  test('a database that does not answer is waited for', () => {
    expect(isAway(new AppError('unavailable'))).toBe(true)
  })

  test.each([
    ['28P01', 'wrong password'],
    ['3D000', 'no such database'],
    ['58P01', 'a file of the server is missing'],
    ['XX001', 'a page is damaged'],
    ['42501', 'no permission'],
    ['42601', 'wrong SQL'],
  ])('a database that says %s is not waited for: %s', code => {
    expect(isAway(failed(code))).toBe(false)
  })

  test('a fault of ours is not waited for', () => {
    expect(isAway(new TypeError('broken'))).toBe(false)
  })
})

describe('a listener', () => {
  const lines: string[] = []
  const write = (text: string) => void lines.push(...text.trimEnd().split('\n'))
  const log = createLog({ level: 'info', pretty: false, write })
  const logged = () => {
    log.flush()
    return lines.splice(0).map(line => JSON.parse(line))
  }
  const start = () => {
    const { server, attach } = listen({ host: '127.0.0.1', port: 0, workers: 1 }, log)
    return {
      attach,
      get: (path: string, method = 'GET') => fetch(new URL(path, server.url), { method }),
      server,
    }
  }

  test('answers the probes of a process that lives, and keeps every other request for the app', async () => {
    const { attach, get, server } = start()
    const probes = await Promise.all(['/health', '/health/live'].map(path => get(path)))
    const others = [get('/health/ready'), get('/health', 'POST'), get('/x')]
    await until(() => server.pendingRequests === others.length)
    const lineOfEach = logged()
    attach(() => new Response('app'))
    const answers = await Promise.all([...others, get('/health')])
    await server.stop(true)

    for (const probe of probes) {
      expect([probe.status, await probe.json()]).toEqual([200, { status: 'healthy' }])
      expect(probe.headers.get('x-content-type-options')).toBe('nosniff')
      const id = probe.headers.get('x-request-id')
      const line = {
        msg: 'request',
        request_id: id,
        method: 'GET',
        route: new URL(probe.url).pathname,
        status: 200,
      }
      expect(lineOfEach).toContainEqual(expect.objectContaining(line))
    }
    expect(lineOfEach).toHaveLength(2)
    expect(await Promise.all(answers.map(answer => answer.text()))).toEqual(Array(4).fill('app'))
  })

  test('answers for an app that fails, in the shape of the API, without a word of the failure', async () => {
    const { attach, get, server } = start()
    attach(() => {
      throw new Error('geheim')
    })
    const answer = await get('/x')
    await server.stop(true)

    const body = (await answer.json()) as Record<string, unknown>
    expect([answer.status, body]).toEqual([
      500,
      { code: 'internal', detail: 'Internal server error', request_id: expect.any(String) },
    ])
    expect(answer.headers.get('x-content-type-options')).toBe('nosniff')
    expect(answer.headers.get('x-request-id')).toBe(String(body.request_id))
    expect(logged()).toMatchObject([
      { level: 'error', msg: 'request failed', request_id: body.request_id, message: 'geheim' },
    ])
  })

  test('passes on URLs that can be parsed, also of an HTTP/1.0 request that waits for its turn', async () => {
    const { attach, server } = start()
    attach(({ url }) => new Response(URL.canParse(url) ? 'an address' : url))
    const answers: string[] = []
    for (let i = 0; i < requestsAtOnce; i++)
      answers.push(await exchange(server.url.href, Buffer.from('GET /health/ready HTTP/1.0\r\n\r\n')))
    await server.stop(true)

    expect(answers.filter(answer => !answer.endsWith('an address'))).toEqual([])
  })

  test('closes a connection that is idle for half a minute', async () => {
    const bun = spyOn(Bun, 'serve')
    await start().server.stop(true)
    const [options] = bun.mock.lastCall!
    bun.mockRestore()

    expect([options, idleSeconds]).toEqual([expect.objectContaining({ idleTimeout: 30 }), 30])
  })
})

test('the proxies of deploy/ close an idle connection before the service does, as the documents say', () => {
  const read = (file: string) => readFileSync(join(import.meta.dir, '..', file), 'utf8')
  const seconds = (file: string, pattern: RegExp) => Number(read(file).match(pattern)?.[1])

  expect(seconds('docs/observability.md', /A connection may be idle for (\d+) s/)).toBe(idleSeconds)
  expect(seconds('docs/deploy.md', /the service closes them after (\d+) s/)).toBe(idleSeconds)
  expect(seconds('deploy/nginx.conf', /keepalive_timeout (\d+)s/)).toBeLessThan(idleSeconds)
  expect(seconds('deploy/haproxy.cfg', /pool-purge-delay (\d+)s/)).toBeLessThan(idleSeconds)
})

test('a service says what it has migrated; a request that does not end delays its stop by the limit, and is cut off', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'todo-api-serve-'))
  await addEmptyEmbeddedDatabase(folder)
  const lines: string[] = []
  const log = createLog({ level: 'info', pretty: false, write: text => void lines.push(text) })
  const config = parseConfig({ DATA_DIR: folder, PORT: '0', ENVIRONMENT: 'test', BCRYPT_COST: '4' })
  const service = await serve(config, log, undefined, undefined, { inFlight: 0.7, jobs: 0.1, all: 90 })
  await service.migrated
  const url = service.url.replace(/\/$/, '')
  const { token } = await client(url).user()
  const slow = await halfSent(url, token)

  const began = performance.now()
  await service.stop('the test is over')
  const seconds = (performance.now() - began) / 1000
  rmSync(folder, { recursive: true })

  expect(seconds).toBeGreaterThan(0.69)
  // After half a minute the listener would have closed it.
  expect(seconds).toBeLessThan(idleSeconds - 5)
  expect(await slow.finish()).toBe('')
  const last = migrations.at(-1)!.tag
  expect(lines.join('')).toContain(`"msg":"migrated","applied":${migrations.length},"last":"${last}"`)
}, 60_000)

test('a database that is away is asked twice a second, and the log says so every ten seconds', async () => {
  const lines: string[] = []
  const log = createLog({ level: 'warn', pretty: false, write: text => void lines.push(text) })
  const DATABASE_URL = 'postgres://a@127.0.0.1:1/b'
  const config = parseConfig({ DATABASE_URL, SECRET_KEY: 'x'.repeat(40), PORT: '0', ENVIRONMENT: 'test' })
  const pauses: unknown[] = []
  const twentySeconds = Promise.withResolvers<void>()
  const { sleep } = Bun
  const clock = spyOn(Bun, 'sleep').mockImplementation(async pause => {
    if (pauses.push(pause) <= 40) return
    twentySeconds.resolve()
    await sleep(pause)
  })
  const service = await serve(config, log)
  await twentySeconds.promise
  clock.mockRestore()
  await log.flush()
  await service.stop('the test is over')

  expect(new Set(pauses)).toEqual(new Set([500]))
  expect(lines.join('').match(/"waiting for the database"/g)).toHaveLength(3)
})

test('a service that is stopped, once, while it waits for its database waits no more', async () => {
  const lines: string[] = []
  const log = createLog({ level: 'info', pretty: false, write: text => void lines.push(text) })
  const DATABASE_URL = 'postgres://nobody@127.0.0.1:1/nothing'
  const config = parseConfig({ DATABASE_URL, SECRET_KEY: 'x'.repeat(40), PORT: '0', ENVIRONMENT: 'test' })
  const service = await serve(config, log)
  await Promise.all([service.stop('the test is over'), service.stop('again')])
  const outcome = service.migrated.then(() => 'over')
  await log.flush()

  expect(await Promise.race([outcome, Bun.sleep(3000)])).toBe('over')
  expect(lines.join('').match(/"stopping","reason":"[^"]*/g)).toEqual([
    '"stopping","reason":"the test is over',
  ])
})

test('why a service cannot start is known to its caller alone, also when that asks later', async () => {
  const { url, drop } = await emptyDatabase()
  await drop()
  const log = createLog({ level: 'error', pretty: false, write: () => {} })
  const env = { DATABASE_URL: url, SECRET_KEY: 'x'.repeat(40), PORT: '0', ENVIRONMENT: 'test' }
  const service = await serve(parseConfig(env), log)
  await until(() => Bun.peek.status(service.migrated) === 'rejected')
  const ready = await client(service.url.replace(/\/$/, '')).get('/health/ready')
  await service.stop('the test is over')

  expect(ready.status).toBe(503)
  await expect(service.migrated).rejects.toThrow()
})
