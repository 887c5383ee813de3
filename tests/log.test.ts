import { describe, expect, test } from 'bun:test'
import { createLog, errorFields, type LogLevel } from '../src/telemetry/log.ts'
import { onBothDatabases, type Service } from './support/harness.ts'
import { until } from './support/until.ts'
import { send } from './support/wire.ts'

/** The access line of a request, which is written after its answer. */
async function accessLine(api: Service, requestId: string) {
  for (let i = 0; i < 100; i++) {
    const line = api.logs().find(line => line.msg === 'request' && line.request_id === requestId)
    if (line) return line
    await Bun.sleep(10)
  }
  throw new Error(`no access line for ${requestId}`)
}

onBothDatabases('the log', api => {
  test('has one line for each request, with these fields', async () => {
    const ada = await api.user()
    const task = await api.task(ada)
    const calls = [
      ['GET', `/tasks/${task.id}`, '/api/v1/tasks/:id', 200],
      ['GET', '/tasks?limit=0', '/api/v1/tasks', 422],
      ['HEAD', '/tasks', '/api/v1/tasks', 200],
      ['DELETE', `/tasks/${task.id}`, '/api/v1/tasks/:id', 204],
      ['GET', `/tasks/${task.id}/`, '/api/v1/tasks/:id', 404],
    ] as const
    const times: number[] = []
    for (const [method, path, route, status] of calls) {
      const id = `log-${crypto.randomUUID()}`
      await api.request(method, path, { token: ada.token, headers: { 'x-request-id': id } })
      const line = await accessLine(api, id)

      expect(line).toEqual({
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
        level: 'info',
        msg: 'request',
        request_id: id,
        method,
        route: expect.any(String),
        status,
        ms: expect.any(Number),
        user_id: ada.id,
      })
      expect(String(line.route).replace(/\/$/, '')).toBe(route)
      // In milliseconds, to the microsecond.
      times.push(Number(line.ms))
      expect(Number(line.ms)).toBeLessThan(10_000)
      expect(String(line.ms)).toMatch(/^\d+(\.\d{1,3})?$/)
      expect(api.logs().filter(line => line.request_id === id)).toHaveLength(1)
    }
    expect(times.every(Number.isInteger)).toBe(false)
  })

  test('names the answer’s status for everything that never reaches a route', async () => {
    const cases = [
      ['GET', '/nope/what-a-user-typed', 404],
      ['POST', '/health', 405],
      ['PROPFIND', '/api/v1/tasks', 405],
      ['GET', '/', 302],
      ['GET', '/docs', 200],
      ['GET', '/api/v1/tasks', 401],
      ['GET', '/health', 200],
      ['OPTIONS', '/api/v1/tasks', 204],
    ] as const
    for (const [method, path, status] of cases) {
      const id = `log-${crypto.randomUUID()}`
      const answer = await send(api.url, {
        line: `${method} ${path}`,
        headers: [
          `X-Request-Id: ${id}`,
          'Origin: http://localhost:3000',
          'Access-Control-Request-Method: GET',
        ],
      })
      const line = await accessLine(api, id)

      expect([method, path, answer.status, line.status]).toEqual([method, path, status, status])
      expect(line.user_id).toBeUndefined()
      expect(api.logs().filter(line => line.request_id === id)).toHaveLength(1)
      expect(JSON.stringify(line)).not.toContain('typed')
    }
  })

  test('never has a body, a password, a token, a header or a value of a query', async () => {
    const secret = (name: string) => `geheim-${name}-${crypto.randomUUID()}`
    const password = secret('password')
    const email = `${secret('email')}@example.com`
    const ada = await api.user(email, password)
    const { token } = ada
    const words = Object.fromEntries(
      ['title', 'query', 'path', 'wrong', 'key', 'agent', 'unknown', 'cookie', 'tag'].map(name => [
        name,
        secret(name),
      ]),
    ) as Record<string, string>
    const headers = {
      'user-agent': words.agent!,
      cookie: `session=${words.cookie}`,
      'idempotency-key': words.key!,
    }

    const made = await api.post('/tasks', {
      token,
      json: { title: words.title, tags: [words.tag!.slice(0, 50)] },
      headers,
    })
    await api.get(`/tasks?q=${words.query}&limit=${words.query}`, { token })
    await api.get(`/tasks?tag=${words.query}`, { token })
    await api.get(`/tasks/${words.path}`, { token })
    await api.get(`/${words.path}`)
    await api.patch(`/tasks/${made.body.id}`, { token, json: { title: 5, unknown: words.unknown } })
    await api.post('/auth/login', { form: { username: email, password: words.wrong! } })
    await api.post('/auth/login', { json: { username: email, password: [password] } })
    await api.post('/auth/register', { json: { email, password } })
    const refreshed = await api.post('/auth/refresh', { json: { refresh_token: ada.refreshToken } })
    await api.post('/users/me/password', {
      token,
      json: { current_password: words.wrong, new_password: words.unknown },
    })
    await api.get('/tasks', { token: `${token}x` })
    // And a failure inside, whose text in the database repeats the row.
    await api.sql(
      `alter table tasks add constraint refuse check (title not like 'geheim-title%') not valid`,
      [],
    )
    expect(
      (await api.patch(`/tasks/${made.body.id}`, { token, json: { description: words.unknown } })).status,
    ).toBe(409)
    await api.sql('alter table tasks drop constraint refuse', [])
    await api.sql('alter table tasks rename column description_words to gone', [])
    expect((await api.post('/tasks', { token, json: { title: words.title } })).status).toBe(503)
    await api.sql('alter table tasks rename column gone to description_words', [])
    await Bun.sleep(50)

    const logged = JSON.stringify(api.logs())
    expect(api.logs().length).toBeGreaterThan(12)
    expect(logged).not.toContain('geheim')
    for (const part of [
      ada.token,
      ada.refreshToken,
      refreshed.body.refresh_token,
      refreshed.body.access_token,
    ]) {
      expect(logged).not.toContain(part)
      expect(logged).not.toContain(part.split('.').at(-1))
    }
  })

  test('is JSON, line by line, whatever is in it', () => {
    for (const line of api.logs())
      expect(line).toMatchObject({
        time: expect.any(String),
        level: expect.any(String),
        msg: expect.any(String),
      })
  })
})

describe('a log', () => {
  const written = (level: LogLevel, pretty = false) => {
    const lines: string[] = []
    const log = createLog({ level, pretty, write: text => void lines.push(text) })
    const all = () => {
      log.flush()
      return lines.join('').split('\n').filter(Boolean)
    }
    return { log, lines: all }
  }

  test.each([
    ['debug', ['info', 'warn', 'error']],
    ['info', ['info', 'warn', 'error']],
    ['warn', ['warn', 'error']],
    ['error', ['error']],
  ] as const)('of the level %s has the lines of %j', (threshold, shown) => {
    const { log, lines } = written(threshold)
    for (const level of ['info', 'warn', 'error'] as const) log[level](level)

    expect(lines().map(line => JSON.parse(line).level)).toEqual([...shown])
  })

  test('names its process in every line', () => {
    const texts: string[] = []
    const write = (text: string) => void texts.push(text)
    const log = createLog({ level: 'info', pretty: false, write, about: { worker: 2 } })
    log.error('one')
    log.error('two', { count: 1 })

    expect(texts.map(text => JSON.parse(text))).toMatchObject([{ worker: 2 }, { worker: 2, count: 1 }])
  })

  test('gathers lines for a moment, but never a warning or an error', async () => {
    const texts: string[] = []
    const log = createLog({ level: 'debug', pretty: false, write: text => void texts.push(text) })
    log.info('one')
    log.info('two')
    expect(texts).toEqual([])
    log.error('three')
    expect(texts.join('').split('\n')).toHaveLength(4)
    log.info('four')
    await Bun.sleep(200)
    expect(texts).toHaveLength(2)
  })

  test.each(['warn', 'error'] as const)('writes a line of level %s at once', level => {
    const texts: string[] = []
    const log = createLog({ level: 'debug', pretty: false, write: text => void texts.push(text) })
    log.info('gathered')
    log[level]('urgent')

    expect(texts.join('').match(/"msg":"\w+"/g)).toEqual(['"msg":"gathered"', '"msg":"urgent"'])
  })

  test('writes 64 KiB at once, and less after 100 ms', async () => {
    const texts: string[] = []
    const log = createLog({ level: 'debug', pretty: false, write: text => void texts.push(text) })
    for (let i = 0; i < 60; i++) log.info('x'.repeat(1000))
    const before = texts.length
    for (let i = 0; i < 2; i++) log.info('x'.repeat(1000))
    expect(before).toBe(0)
    expect(texts.join('').split('\n')).toHaveLength(63)

    const began = performance.now()
    log.info('later')
    const count = texts.length
    await until(() => texts.length > count)
    expect(performance.now() - began).toBeGreaterThan(90)
  })

  test('writes whole lines, never more than a pipe keeps together when asked to', () => {
    const texts: string[] = []
    const write = (text: string) => void texts.push(text)
    const log = createLog({ level: 'debug', pretty: false, write, batchBytesMax: 4096 })
    for (let i = 0; i < 200; i++) log.info('ä'.repeat(i * 9))
    log.flush()

    const lines = texts.flatMap(text => text.trimEnd().split('\n'))
    expect(lines.map(line => JSON.parse(line).msg.length)).toEqual(
      Array.from({ length: 200 }, (_, i) => i * 9),
    )
    expect(Math.max(...texts.map(text => Buffer.byteLength(text)))).toBeLessThanOrEqual(4096)
    expect(texts.every(text => text.endsWith('\n'))).toBe(true)
    // Two short lines share a batch.
    expect(texts.length).toBeLessThan(130)
  })

  test('that is not read keeps a bounded number of lines, and says later how many it dropped', async () => {
    const texts: string[] = []
    const reader = Promise.withResolvers<void>()
    const write = (text: string) => {
      texts.push(text)
      return reader.promise
    }
    const log = createLog({ level: 'info', pretty: false, write, waitingBytesMax: 256 * 1024 })
    for (let i = 0; i < 10_000; i++) log.info(String(i), { padding: 'x'.repeat(100) })
    const dropped = log.dropped()
    expect(texts).toHaveLength(1)
    expect(dropped).toBeGreaterThan(5000)

    reader.resolve()
    await log.flush()
    log.info('goes on')
    await log.flush()

    const lines = texts
      .join('')
      .trimEnd()
      .split('\n')
      .map(line => JSON.parse(line))
    const numbered = lines.filter(({ padding }) => padding)
    expect(numbered.map(({ msg }) => Number(msg))).toEqual(numbered.map((_, i) => i))
    expect(numbered).toHaveLength(10_000 - dropped)
    expect(Buffer.byteLength(numbered.map(line => `${JSON.stringify(line)}\n`).join(''))).toBeWithin(
      255 * 1024,
      256 * 1024 + 1,
    )
    expect(lines.filter(({ msg }) => msg === 'log lines dropped')).toMatchObject([
      { level: 'warn', count: dropped },
    ])
    expect(lines.at(-1)).toMatchObject({ msg: 'goes on' })
  })

  test('keeps 1 MiB for a reader that is slow', () => {
    const write = () => new Promise<void>(() => {})
    const log = createLog({ level: 'info', pretty: false, write })
    const line = `${JSON.stringify({ time: new Date(), level: 'info', msg: 'x'.repeat(1000) })}\n`
    const kept = Math.floor(1024 ** 2 / line.length)
    for (let i = 0; i < kept; i++) log.info('x'.repeat(1000))
    expect(log.dropped()).toBe(0)
    log.info('x'.repeat(1000))
    expect(log.dropped()).toBe(1)
  })

  test('whose reader has gone counts its lines as dropped, and says so when there is a reader again', async () => {
    const texts: string[] = []
    let isGone = true
    const write = async (text: string) => {
      if (isGone) throw Object.assign(new Error('broken pipe'), { code: 'EPIPE' })
      texts.push(text)
    }
    const log = createLog({ level: 'info', pretty: false, write })
    for (let i = 0; i < 5; i++) {
      log.info('lost')
      log.info('lost, too')
      await log.flush()
    }
    expect(log.dropped()).toBe(10)

    isGone = false
    log.info('received')
    await log.flush()
    expect(texts.map(text => JSON.parse(text))).toMatchObject([
      { msg: 'received' },
      { msg: 'log lines dropped', count: 10 },
    ])
  })

  test('asks whether it is for a terminal at its first line, and once', () => {
    let asked = 0
    const pretty = () => ++asked > 0
    const log = createLog({ level: 'info', pretty, write: () => {} })
    const before = asked
    log.info('one')
    log.info('two')

    expect([before, asked]).toEqual([0, 1])
  })

  test('is one line per event at a terminal, too', () => {
    const { log, lines } = written('info', true)
    log.info('migrated', { to: '/x', count: 2, user_id: undefined })

    expect(lines()).toHaveLength(1)
    expect(lines()[0]).toMatch(/^\d\d:\d\d:\d\d INFO {2}migrated to=\/x count=2$/)
  })

  test('quotes at a terminal what could be taken for more fields', () => {
    const { log, lines } = written('info', true)
    log.warn('origin refused', { origin: 'null remedy=x', about: 'a=b', quoted: 'a"b', plain: 'a/b' })

    expect(lines()[0]).toEndWith('origin="null remedy=x" about="a=b" quoted="a\\"b" plain=a/b')
  })

  test('shows a stack in lines at a terminal', () => {
    const { log, lines } = written('info', true)
    log.error('failed', { stack: '    at a (file.ts:1:1)\n    at b (file.ts:2:1)' })

    expect(lines()).toEqual([
      expect.stringMatching(/ stack= +at a \(file\.ts:1:1\)$/),
      '    at b (file.ts:2:1)',
    ])
  })

  test('shows a request in 100 columns at a terminal, whatever the client sent', () => {
    const { log, lines } = written('info', true)
    const request = { method: 'GET', route: '/api/v1/tasks/:id', status: 200, ms: 8.649 }
    log.info('request', { request_id: Bun.randomUUIDv7(), ...request, user_id: 'ada' })
    log.info('request', { request_id: 'x'.repeat(39), ...request })
    log.info('request', { request_id: 'x'.repeat(40), ...request })
    log.info('request', { request_id: 'x'.repeat(128), ...request, method: 'OPTIONS' })
    log.info('request', { request_id: 'x'.repeat(128), ...request, method: 'M'.repeat(200) })

    const [usual, ...long] = lines()
    expect(long.map(line => line.slice(-2))).toEqual(['xx', 'x…', 'x…', 'M…'])
    expect(usual).toMatch(/^\d\d:\d\d:\d\d GET {4}\/api\/v1\/tasks\/:id {11}200 {6}8\.6 ms {2}[\da-f-]{36}$/)
    for (const line of long) expect(line).toHaveLength(100)
  })

  test('of a line break or a control character makes no second line and no terminal command', () => {
    for (const nasty of ['a\nb\r\nc\u001b[31mred\u0007', '\u001b[31mred', 'bell\u0007', 'c1\u009b31m']) {
      for (const pretty of [false, true]) {
        const { log, lines } = written('info', pretty)
        log.info('x', { nasty })
        expect(lines()).toHaveLength(1)
        expect(lines()[0]).not.toContain('\u001b')
        if (pretty) expect(lines()[0]).not.toMatch(/\p{Cc}/u)
      }
    }
  })

  test('says of a failure of the system what it says, whatever its code', () => {
    for (const code of ['EPERM', 'EBUSY', 'ENOENT']) {
      const fields = errorFields(Object.assign(new Error(`${code}: a file`), { code }))
      expect(fields).toMatchObject({
        code,
        message: `${code}: a file`,
        stack: expect.stringContaining('at '),
      })
    }
  })

  test.each([
    { constraint_name: 'users_key', table_name: 'users' },
    { constraint: 'users_key', table: 'users' },
  ])('says of a database’s failure its code and names, never its words: %p', names => {
    const cause = Object.assign(new Error('value "geheim" is wrong'), {
      ...names,
      name: 'PostgresError',
      code: '23505',
      routine: '_bt_check_unique',
      detail: 'Key (geheim)',
      query: 'geheim',
      parameters: ['geheim'],
    })
    const query = new Error('Failed query: insert … params: geheim', { cause })
    const fields = errorFields(new Error('the task was not made: geheim', { cause: query }))

    expect(fields).toEqual({
      error: 'PostgresError',
      code: '23505',
      constraint: 'users_key',
      table: 'users',
      routine: '_bt_check_unique',
    })
    expect(JSON.stringify(fields)).not.toContain('geheim')
  })

  test('of a long failure stays under 4 KiB, which processes that share a pipe need', () => {
    const error = new Error('\n'.repeat(5000))
    error.stack = '    at a (file.ts:1:1)\n'.repeat(1000)
    const { log, lines } = written('info')
    log.error('failed', errorFields(error))
    expect(Buffer.byteLength(lines()[0]!)).toBeLessThan(4096)
  })

  test('says of any other failure its words and where it happened', () => {
    const fields = errorFields(new TypeError('broken\nin two lines'))

    expect(fields).toMatchObject({ error: 'TypeError', message: 'broken\nin two lines' })
    expect(fields.stack).toContain('log.test.ts')
    expect(fields.stack).not.toMatch(/broken|two lines/)
    expect(errorFields('geheim')).toEqual({ error: 'string' })
    expect(errorFields(undefined)).toEqual({ error: 'undefined' })
  })
})
