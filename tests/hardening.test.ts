import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { readdirSync, readlinkSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { parseConfig } from '../src/config/config.ts'
import { type Running, startExecutable, untilReady } from './support/executable.ts'
import { type Service, startService, type User } from './support/harness.ts'
import { stopwatch } from './support/stopwatch.ts'
import { until } from './support/until.ts'
import { exchange, send } from './support/wire.ts'

describe('every answer', () => {
  const api = {} as Service
  const ada = {} as User
  let task: { id: string }
  beforeAll(async () => {
    Object.assign(api, await startService('postgres', { METRICS_TOKEN: 'metrics-token-metrics-token' }))
    Object.assign(ada, await api.user())
    task = await api.task(ada)
  }, 30_000)
  afterAll(() => api.stop?.())

  const bearer = () => `Authorization: Bearer ${ada.token}`
  const json = 'Content-Type: application/json'

  test('says what a browser must not do with it, whatever it is', async () => {
    const cases: [line: string, status: number, headers?: string[], body?: string][] = [
      ['GET /health', 200],
      ['GET /health/ready', 200],
      ['HEAD /health', 200],
      ['GET /', 302],
      ['GET /docs', 200],
      ['GET /openapi.json', 200],
      ['GET /nope', 404],
      ['GET /docs/assets/x/y.js', 404],
      ['POST /health', 405],
      ['PROPFIND /health', 405],
      ['GET /metrics', 401],
      ['GET /metrics', 200, ['Authorization: Bearer metrics-token-metrics-token']],
      ['OPTIONS /api/v1/tasks', 204, ['Origin: http://localhost:3000', 'Access-Control-Request-Method: PUT']],
      ['OPTIONS /api/v1/tasks', 204, ['Origin: http://evil.example', 'Access-Control-Request-Method: PUT']],
      ['GET /api/v1/tasks', 401],
      ['GET /api/v1/tasks', 200, [bearer()]],
      ['GET /api/v1/tasks?limit=0', 422, [bearer()]],
      [`GET /api/v1/tasks/${task.id}`, 200, [bearer()]],
      [`GET /api/v1/tasks/${task.id}`, 304, [bearer(), 'If-None-Match: *']],
      ['GET /api/v1/tasks/nonsense', 404, [bearer()]],
      ['POST /api/v1/tasks', 201, [bearer(), json], '{"title":"x"}'],
      ['POST /api/v1/tasks', 422, [bearer(), json], '{"title":'],
      ['POST /api/v1/tasks', 413, [bearer(), json], 'x'.repeat(40_000)],
      ['POST /api/v1/tasks', 415, [bearer(), 'Content-Type: text/plain'], 'x'],
      [`PATCH /api/v1/tasks/${task.id}`, 412, [bearer(), json, 'If-Match: "999"'], '{"title":"x"}'],
      ['POST /api/v1/auth/login', 401, [json], '{"username":"x@example.com","password":"nonsense"}'],
    ]
    for (const [line, status, headers = [], body = ''] of cases) {
      const answer = await send(api.url, { line, headers, body })
      const header = (name: string) => answer.headers.get(name)

      expect([line, answer.status]).toEqual([line, status])
      expect({ line, nosniff: header('x-content-type-options') }).toEqual({ line, nosniff: 'nosniff' })
      expect(header('referrer-policy')).toBe('no-referrer')
      expect(header('x-frame-options')).toBe('DENY')
      expect(header('cross-origin-resource-policy')).toBe('same-origin')
      expect(header('content-security-policy')).toMatch(/^default-src 'none'; .*frame-ancestors 'none'$/)
      expect(header('cache-control')).not.toBeNull()
      expect(header('server')).toBeNull()
      expect(header('x-powered-by')).toBeNull()
    }
  })

  test('that is about a user stays out of every cache but the user’s own', async () => {
    const signedIn = { token: ada.token }
    const { refreshToken } = ada
    const noStore = [
      await api.post('/auth/login', { form: { username: ada.email, password: ada.password } }),
      await api.post('/auth/refresh', { json: { refresh_token: refreshToken } }),
      await api.get('/users/me', signedIn),
      await api.get('/tasks?overdue=true', signedIn),
      await api.get('/tasks/stats', signedIn),
      await api.get('/tasks/trash', signedIn),
      await api.get(`/tasks/${task.id}`, signedIn),
      await api.get('/tasks', { token: 'nonsense' }),
    ]
    const lists = [await api.get('/tasks', signedIn), await api.get('/tasks/changes', signedIn)]
    const page = await api.get(`${api.url}/docs`)
    const [asset] = page.body.match(/\/docs\/assets\/[^"]+\.js/)

    expect(noStore.map(answer => answer.headers.get('cache-control'))).toEqual(noStore.map(() => 'no-store'))
    for (const list of lists) expect(list.headers.get('cache-control')).toBe('private, no-cache')
    expect(page.headers.get('cache-control')).toBe('no-cache')
    expect((await api.get(api.url + asset)).headers.get('cache-control')).toContain('immutable')
  })

  test('with a tag that another user may get, too, is kept by no browser', async () => {
    const users = [await api.user(), await api.user()]
    const id = crypto.randomUUID()
    for (const path of ['/tasks', '/lists']) {
      const answers = []
      for (const { token, email } of users) {
        const json = { id, title: email, name: email.slice(0, 100) }
        expect((await api.post(path, { token, json })).status).toBe(201)
        answers.push(await api.get(`${path}/${id}`, { token }))
      }
      const [one, other] = answers.map(({ headers }) => headers.get('etag'))
      expect(one).toBe(other!)
      // Browsers ask with the tag that they have, even when another user has signed in since, also where `Vary` names the difference.
      for (const { headers } of answers) expect(headers.get('cache-control')).toBe('no-store')
      const [{ token }] = users as [User, User]
      const kept = await api.get(`${path}/${id}`, { token, headers: { 'if-none-match': one! } })
      expect([kept.status, kept.headers.get('cache-control')]).toEqual([304, 'no-store'])
    }
  })

  test('a health check in HTTP/1.0, which names no host, is answered', async () => {
    const answer = await exchange(api.url, Buffer.from('GET /health/ready HTTP/1.0\r\n\r\n'))
    expect(answer).toStartWith('HTTP/1.1 200')
  })

  test('is the same under a host that is none', async () => {
    for (const host of ['[', 'x:99999', '%', ':', 'xn--a', '1.2.3.4.5', 'a b', 'a/b', '']) {
      const head = `Host: ${host}\r\nConnection: close\r\n${bearer()}`
      const list = Buffer.from(`GET /api/v1/tasks?tag=a&sort=title HTTP/1.1\r\n${head}\r\n\r\n`)
      const ping = '{"jsonrpc":"2.0","id":1,"method":"ping"}'
      const message = `POST /mcp HTTP/1.1\r\n${head}\r\n${json}\r\nContent-Length: ${ping.length}\r\n\r\n${ping}`
      expect([host, await exchange(api.url, list)]).toEqual([host, expect.stringMatching(/^HTTP\/1.1 200/)])
      const answer = await exchange(api.url, Buffer.from(message))
      expect([host, answer]).toEqual([host, expect.stringMatching(/^HTTP\/1.1 200/)])
    }
  })

  test('is the same under a host of one letter', async () => {
    const answer = await exchange(
      api.url,
      Buffer.from('GET /health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
    )
    expect(answer).toStartWith('HTTP/1.1 200')
  })

  test('to nonsense is short, and the connection is closed', async () => {
    const nonsense: [string, number][] = [
      [`GET /${'a'.repeat(17_000)} HTTP/1.1\r\nHost: x\r\n\r\n`, 431],
      [`GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ${'a'.repeat(17_000)}\r\n\r\n`, 431],
      [`GET /health HTTP/1.1\r\nHost: x\r\n${'X-Many: 1\r\n'.repeat(250)}\r\n`, 431],
      ['GET /health HTTP/1.1\r\n\r\n', 400],
      ['\x16\x03\x01\x02\r\n\r\n', 400],
      ['GET /health HTTP/1.1\r\nHost: x\r\nX Y: z\r\n\r\n', 400],
      // Two lengths: a proxy in front might see another request than we do.
      [
        'POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
        400,
      ],
      ['POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello', 400],
    ]
    for (const [bytes, status] of nonsense) {
      const answer = await exchange(api.url, Buffer.from(bytes, 'latin1'))

      expect([bytes.slice(0, 60), answer.slice(0, 12)]).toEqual([bytes.slice(0, 60), `HTTP/1.1 ${status}`])
      expect(answer).toContain('Connection: close')
    }
    // Bun hangs up on a method that is not registered.
    expect(await exchange(api.url, Buffer.from('NONSENSE /health HTTP/1.1\r\nHost: x\r\n\r\n'))).toBe('')
    const longest = await send(api.url, { line: `GET /health?${'a'.repeat(12_000)}` })
    expect(longest.status).toBe(200)
  })
})

describe('when hashing is slow', () => {
  const api = {} as Service
  beforeAll(async () => {
    // A hash takes two seconds here, and all that can wait a minute.
    Object.assign(
      api,
      await startService('postgres', { BCRYPT_COST: '15', METRICS_TOKEN: 'metrics-token-metrics-token' }),
    )
  }, 30_000)
  afterAll(() => api.stop?.())

  const figure = async (name: string) => {
    const { body } = await api.get(`${api.url}/metrics`, { token: 'metrics-token-metrics-token' })
    return Number(new RegExp(`^\\S*${name} (\\d+)$`, 'm').exec(body)![1])
  }
  const waiting = () => figure('password_hashes_waiting')

  /** One request over each of that many connections; each of another account: attempts on one wait for each other. */
  function sendOverEach(count: number, paths = ['/api/v1/auth/login', '/api/v1/auth/register']) {
    const { hostname, port } = new URL(api.url)
    const request = (i: number) => {
      const path = paths[i % paths.length]!
      const body = JSON.stringify({
        [path.endsWith('register') ? 'email' : 'username']: `u${i}@example.com`,
        password: 'nonsense',
      })
      return `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`
    }
    return Array.from({ length: count }, (_, i) => {
      const socket = connect(Number(port), hostname, () => socket.write(request(i)))
      return socket.on('error', () => {}).resume()
    })
  }

  test('a client that hangs up while its account is looked up never joins it', async () => {
    const count = parseConfig({}).hashing.atOnce + 15
    await api.driver.dedicatedConnection(async ({ execute }) => {
      await execute('begin; lock table users in access exclusive mode')
      const sockets = sendOverEach(count, ['/api/v1/auth/login'])
      const held = `select count(*) from pg_locks where not granted and relation = 'users'::regclass`
      await until(async () => Number((await execute(held))[0]![0]) > 0)

      for (const socket of sockets) socket.destroy()

      await Bun.sleep(100)
      await execute('rollback')
    })
    // A hash for each would take longer.
    await until(() => api.logs().filter(({ route }) => route === '/api/v1/auth/login').length === count, 3)

    expect([await figure('password_hashes_running'), await waiting()]).toEqual([0, 0])
  }, 60_000)

  test('clients that hang up keep no place in the queue', async () => {
    const { atOnce } = parseConfig({}).hashing
    const sockets = sendOverEach(atOnce + 15)
    await until(async () => (await waiting()) >= 10)

    for (const socket of sockets) socket.destroy()

    await until(async () => (await waiting()) === 0, 10)
    expect(api.logs().filter(({ level }) => level === 'error' || level === 'warn')).toEqual([])
  }, 60_000)
})

describe('slow clients', () => {
  const count = 100
  let api: Running
  let ada: User
  /** The largest answer that there is: 1.4 MB. */
  let large: string
  beforeAll(async () => {
    api = await startExecutable({ ENVIRONMENT: 'test', BCRYPT_COST: '4' })
    await untilReady(api)
    ada = await api.user()
    const page = await api.get(`${api.url}/docs`)
    ;[large] = page.body.match(/\/docs\/assets\/[^"]+bundle\.js/)
  }, 60_000)
  afterAll(async () => void (await api?.stop()))

  /** How many connections the service holds; Linux tells. */
  function connections() {
    const folder = `/proc/${api.process.pid}/fd`
    return readdirSync(folder).filter(name => {
      try {
        return readlinkSync(`${folder}/${name}`).startsWith('socket:')
      } catch {
        return false
      }
    }).length
  }

  /** A hundred connections that begin with `head` and then send `drip` every second, for as long as they may. */
  function attack(head: string, drip = '', { reads = true } = {}): Socket[] {
    const { hostname, port } = new URL(api.url)
    return Array.from({ length: count }, () => {
      const socket = connect(Number(port), hostname, () => socket.write(head))
      if (!reads) socket.pause()
      else socket.resume()
      const timer = setInterval(() => drip !== '' && socket.writable && socket.write(drip), 1000)
      socket.on('error', () => {}).on('close', () => clearInterval(timer))
      return socket
    })
  }

  test('by the hundred keep no reader out, and are closed in the end', async () => {
    const before = connections()
    const signedIn = `Host: x\r\nAuthorization: Bearer ${ada.token}\r\n`
    const sockets = [
      ...attack(''),
      ...attack('GET /health HTTP/1.1\r\nHost: x\r\n\r\n'),
      ...attack('GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ', 'a'),
      ...attack('GET /health HTTP/1.1\r\nHost: x\r\n', 'X: a\r\n'),
      ...attack(`POST /api/v1/tasks HTTP/1.1\r\n${signedIn}Content-Length: 9999\r\n\r\n`, 'a'),
      ...attack(`POST /api/v1/tasks HTTP/1.1\r\n${signedIn}Transfer-Encoding: chunked\r\n\r\n`, '1\r\na\r\n'),
      ...attack(`GET ${large} HTTP/1.1\r\nHost: x\r\n\r\n`, '', { reads: false }),
    ]
    await until(() => connections() >= before + 6 * count)

    const times: number[] = []
    await until(async () => {
      const elapsed = stopwatch(api.process.pid)
      const answer = await api.get('/tasks?limit=1', { token: ada.token })
      times.push(elapsed())
      expect(answer.status).toBe(200)
      await Bun.sleep(50)
      return connections() <= before + 10
    }, 50)
    for (const socket of sockets) socket.destroy()

    times.sort((a, b) => a - b)
    const median = times[times.length >> 1]!
    expect(median).toBeLessThan(100)
    expect(times.at(-1)).toBeLessThan(2000)
    expect(api.lines.filter(line => line.includes('"level":"error"'))).toEqual([])
  }, 90_000)
})
