import { afterAll, beforeAll, expect, mock, test } from 'bun:test'
import { sql } from 'drizzle-orm'
import { Elysia } from 'elysia'
import type { Driver } from '../src/db/driver.ts'
import { createDb } from '../src/db/drizzle.ts'
import { openPostgres } from '../src/db/postgres/postgres.ts'
import {
  currentCaller,
  renewTimeBudget,
  setCaller,
  withoutTimeBudget,
  withTimeBudget,
} from '../src/db/time-budget.ts'
import { errorHandler } from '../src/http/error-handler.ts'
import { health } from '../src/http/health.ts'
import { requireUser } from '../src/http/require-user.ts'
import { newApiToken } from '../src/lib/api-token.ts'
import { sessionScopes } from '../src/lib/scope.ts'
import type { UserId } from '../src/lib/user-id.ts'
import { createApiTokens } from '../src/modules/auth/api-tokens.ts'
import { createRefreshTokens } from '../src/modules/auth/refresh-tokens.ts'
import { createSessions } from '../src/modules/auth/sessions.ts'
import { createLog } from '../src/telemetry/log.ts'
import { type Service, startService } from './support/harness.ts'
import { createMeeting, type Meeting } from './support/meet.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { stopwatch } from './support/stopwatch.ts'
import { holdOpen, isRefusal } from './support/traffic.ts'
import { until } from './support/until.ts'

// The statements of a request share the time that one may take. Each of those below stays within its own limits.

let server: PostgresServer
let api: Service
let driver: Driver
let meeting: Meeting
beforeAll(async () => {
  server = await startPostgresServer()
  const url = await server.createDatabase('todo')
  api = await startService('postgres', { DATABASE_URL: url })
  driver = openPostgres({ url, poolSize: 10 })
  meeting = createMeeting(url)
}, 60_000)
afterAll(async () => {
  await meeting?.close()
  await driver?.close()
  await api?.stop()
  await server?.close()
})

let texts = 0
/** Each a text of its own: of one that is slow the pool sends no second. */
const sleep = (seconds: number, { query }: Pick<Driver, 'query'> = driver) =>
  query(`select pg_sleep($1) as sleep_${++texts}`, [seconds])
/** Runs `work` as a request. */
const request = <T>(work: () => T | Promise<T>) => withTimeBudget(work, () => '203.0.113.1')
const outcomeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'answered',
    error => error.code,
  )

/** Locks a table when those before it in the queue are through; returns what releases it. */
const lock = (table: string) => holdOpen(server.urlOf('todo'), `lock table ${table} in access exclusive mode`)

const waiters = (count: number) => until(async () => (await meeting.waiting()).length >= count, 1.5)

test.concurrent('what one statement took is missing to the next one, also to a transaction', async () => {
  const next = [() => sleep(1.2), () => driver.transaction(query => sleep(1.2, { query }))]
  const outcomes = next.map(step =>
    request(async () => [await outcomeOf(sleep(1.2)), await outcomeOf(step())]),
  )

  expect(await Promise.all(outcomes)).toEqual(Array(2).fill(['answered', 'unavailable']))
})

test.concurrent('each step of long work has the whole time', async () => {
  const outcomes = await request(async () => {
    const first = await outcomeOf(sleep(1.2))
    renewTimeBudget()
    return [first, await outcomeOf(sleep(1.2))]
  })

  expect(outcomes).toEqual(['answered', 'answered'])
})

test.concurrent('work that goes on after the answer has time of its own, and so has what no request waits for', async () => {
  const answer = Promise.withResolvers<void>()
  let after: Promise<string> | undefined
  let beside: Promise<unknown> | undefined
  await request(async () => {
    beside = withoutTimeBudget(() => sleep(1.2))
    after = answer.promise.then(() => outcomeOf(sleep(1.2)))
    expect(await outcomeOf(sleep(1))).toBe('answered')
  })
  answer.resolve()

  expect([await outcomeOf(beside!), await after]).toEqual(['answered', 'answered'])
})

test('a change whose session, write and look wait for a lock in turn is refused in time', async () => {
  const { token } = await api.user()
  const [releaseSessions, releaseTasks] = [await lock('sessions'), await lock('tasks')]
  const change = api.patch(`/tasks/${crypto.randomUUID()}`, { token, json: { title: 'late' } })
  await waiters(1)
  await Bun.sleep(850)
  await releaseSessions()
  await waiters(1)
  // Behind the write and before the look.
  const again = lock('tasks')
  await waiters(2)
  await Bun.sleep(850)
  await releaseTasks()
  const release = await again
  await Bun.sleep(850)
  await release()

  // Without a common limit it is a 404, after more than 2.5 s.
  expect(isRefusal(await change)).toBe(true)
})

test('a slow poll of the revocations takes nothing from the request that began it', async () => {
  const { token } = await api.user()
  await Bun.sleep(300)
  const [releaseEnds, releaseTasks] = [await lock('session_ends'), await lock('tasks')]
  const change = api.patch(`/tasks/${crypto.randomUUID()}`, { token, json: { title: 'in time' } })
  // The poll and the write.
  await waiters(2)
  const again = lock('tasks')
  await waiters(3)
  await Bun.sleep(700)
  await releaseEnds()
  await waiters(2)
  await releaseTasks()
  const release = await again
  await Bun.sleep(750)
  await release()

  expect(await change).toMatchObject({ status: 404 })
})

test('a trash that takes longer to empty is emptied', async () => {
  const user = await api.user()
  await api.task(user)
  const { sql } = meeting
  await sql`
    insert into tasks (id, user_id, title, version, deleted_at)
    select gen_random_uuid(), ${user.id}, 'old', 1 + n, now() from generate_series(1, 500) n`
  await sql`create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.8); return null; end'`
  await sql`create trigger slow after delete on tasks for each statement execute function slow()`
  const answer = await api.delete('/tasks/trash', { token: user.token })
  await sql`drop trigger slow on tasks`

  expect(answer).toMatchObject({ status: 204 })
  expect(await sql`select count(*)::int as n from tasks where user_id = ${user.id}`).toMatchObject([{ n: 1 }])
})

test('a probe of the readiness is answered in time, however long the look at the database takes', async () => {
  const log = createLog({ level: 'error', pretty: false, write: () => {} })
  const app = new Elysia().use(errorHandler(log, () => [])).use(health(() => new Promise(() => {})))
  const elapsed = stopwatch()
  const answer = await app.handle(new Request('http://localhost/health/ready'))

  expect(elapsed()).toBeLessThan(1900)
  expect(answer.status).toBe(503)
  expect(await answer.json()).toMatchObject({ code: 'not_ready', detail: 'the database does not answer' })
})

test('the statements of a request are those of the user whom its token names', async () => {
  const caller = { id: 'ada' as UserId, sessionId: 'a session', scopes: sessionScopes }
  const app = new Elysia().use(requireUser(() => caller, 'session')).get('/', () => String(currentCaller()))
  const sent = new Request('http://localhost/', { headers: { authorization: 'Bearer token' } })

  expect(await (await request(() => app.handle(sent))).text()).toBe('ada')
})

test('the session of a user who signs in is written as that user, not as the address', async () => {
  const callers: unknown[] = []
  const transaction = async () => void callers.push(currentCaller())
  const db = createDb({ transaction } as never)
  const refreshTokens = createRefreshTokens('a secret')
  const sessions = createSessions({ db, refreshTokens } as never)
  await request(() => sessions.openSession('ada', sql`true`, { ip: null, userAgent: null }))

  expect(callers).toEqual(['ada'])
})

test('a session is looked up as its user, and no request waits for the note of its use, nor one of an API token', async () => {
  const asked: unknown[][] = []
  /** A database that answers every look with `row`, and no note. */
  const databaseOf = (...row: unknown[]) =>
    createDb({
      async query(text: string) {
        asked.push([text.split(' ')[0], currentCaller()])
        return text.startsWith('select') ? [row] : new Promise(() => {})
      },
    } as never)
  const claims = { sub: 'ada', sid: 'a session', exp: Date.now() }
  const tokenCache = { caller: () => undefined, remember() {} }
  const sessions = createSessions({
    db: databaseOf(60_000, true),
    tokens: { verify: async () => claims },
    tokenCache,
  } as never)
  const apiTokens = createApiTokens({
    db: databaseOf('a token', 'ada', ['tasks:read'], null, true),
    tokenCache,
  } as never)

  expect(await request(() => sessions.authenticate('a token'))).toMatchObject({ id: 'ada' })
  expect(await request(() => apiTokens.authenticate(newApiToken()))).toMatchObject({ id: 'ada' })
  // A note without a caller takes no time from the request.
  expect(asked).toEqual([
    ['select', 'ada'],
    ['update', undefined],
    ['select', '203.0.113.1'],
    ['update', undefined],
  ])
})

test('before the user is known, the statements of a request are those of its address, which is not looked up before', async () => {
  const address = mock(() => '203.0.113.1')
  await withTimeBudget(() => {
    setCaller('ada')
    expect(currentCaller()).toBe('ada')
  }, address)
  expect(address).not.toHaveBeenCalled()

  const callers = await withTimeBudget(() => [currentCaller(), currentCaller()], address)
  expect(callers).toEqual(['203.0.113.1', '203.0.113.1'])
  expect(address).toHaveBeenCalledTimes(1)
})

test('requests of one address without a known user leave room for those from elsewhere', async () => {
  const settings = {
    DATABASE_URL: server.urlOf('todo'),
    DATABASE_POOL_SIZE: '2',
    TRUSTED_PROXIES: '127.0.0.1/32',
  }
  const api = await startService('postgres', settings)
  const release = await lock('api_tokens')
  try {
    const { email, password } = await api.user()
    const from = (ip: string) => ({ headers: { 'x-forwarded-for': ip } })
    const json = { username: email, password }
    const { refresh_token } = (await api.post('/auth/login', { json })).body
    // Of a pool of two, 200 requests may wait.
    const flood = Array.from({ length: 250 }, () =>
      api.get('/tasks', { token: newApiToken(), ...from('203.0.113.1') }),
    )
    expect((await Promise.race(flood)).status).toBe(503)

    const refreshed = await api.post('/auth/refresh', { json: { refresh_token }, ...from('203.0.113.2') })
    expect(refreshed.status).toBe(200)
    await release()
    await Promise.all(flood)
  } finally {
    await release()
    await api.stop()
  }
})
