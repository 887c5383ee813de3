import { heapStats } from 'bun:jsc'
import { expect, setSystemTime, test } from 'bun:test'
import { eq } from 'drizzle-orm'
import { createDb } from '../src/db/drizzle.ts'
import { observeDriver } from '../src/db/instrumented-driver.ts'
import { users } from '../src/db/tables.ts'
import { AppError } from '../src/lib/errors.ts'
import { provePassword } from '../src/modules/auth/current-password.ts'
import { createPasswords } from '../src/modules/auth/password-hash.ts'
import { createThrottle } from '../src/modules/auth/throttle.ts'
import { type Answer, onBothDatabases, type Service } from './support/harness.ts'
import { exchange } from './support/wire.ts'

/** A sign-in that seems to come from `ip`, if its sender is a trusted proxy. */
const signIn = (api: Service, username: string, password: string, ip: string): Promise<Answer> =>
  api.post('/auth/login', { form: { username, password }, headers: { 'x-forwarded-for': ip } })

const from = (ip: string | null) => ({ ip, signal: new AbortController().signal })

/** Counts those that are over. */
function countSettled(answers: Promise<unknown>[]): () => number {
  let over = 0
  for (const answer of answers) void answer.finally(() => over++)
  return () => over
}

/** An account whose user is signed in from these addresses. */
const on = (account: string, ...addresses: string[]) => ({ account, addresses: async () => addresses })

onBothDatabases(
  'throttles of an address',
  api => {
    const attempt = async (ip: string) => (await signIn(api, 'unknown@example.com', 'wrong', ip)).status

    test('one that signs in too often learns when to try again', async () => {
      const answers: Answer[] = []
      for (let i = 0; i < 3; i++)
        answers.push(await signIn(api, 'unknown@example.com', 'wrong', '203.0.113.1'))

      expect(answers.map(answer => answer.status)).toEqual([401, 401, 429])
      expect(answers[0]!.headers.get('ratelimit-policy')).toBe('"login";q=2;w=60')
      expect(answers[0]!.headers.get('ratelimit')).toMatch(/^"login";r=1;t=\d+$/)
      expect(answers[2]!.headers.get('ratelimit-policy')).toBe('"login";q=2;w=60')
      expect(answers[2]!.headers.get('ratelimit')).toMatch(/^"login";r=0;t=\d+$/)
      expect(Number(answers[2]!.headers.get('retry-after'))).toBeWithin(1, 61)
      expect(answers[2]!.body).toEqual({
        detail: 'Too many requests',
        code: 'too_many_requests',
        request_id: expect.any(String),
        error: 'temporarily_unavailable',
        error_description: 'Too many requests',
      })
      expect(await attempt('203.0.113.2')).toBe(401)
    })

    test('one that signs in too often opens no session, with the right password either', async () => {
      const password = 'correct horse'
      const email = `${crypto.randomUUID()}@example.com`
      const headers = { 'x-forwarded-for': '203.0.113.4' }
      const { id } = (await api.post('/auth/register', { json: { email, password }, headers })).body
      const statuses = []
      for (let i = 0; i < 3; i++) statuses.push((await signIn(api, email, password, '203.0.113.5')).status)

      expect(statuses).toEqual([200, 200, 429])
      expect(await api.sql('select count(*)::int from sessions where user_id = $1', [id])).toEqual([[2]])
    })

    test('the whole /64 of an IPv6 address is one address', async () => {
      expect(await attempt('2001:db8:1:2::1')).toBe(401)
      expect(await attempt('2001:db8:1:2::2')).toBe(401)
      expect(await attempt('2001:db8:1:2:ffff::9')).toBe(429)
      expect(await attempt('2001:db8:1:3::1')).toBe(401)
    })

    test('of several hops only those that trusted proxies wrote count', async () => {
      expect(await attempt('198.51.100.1, 203.0.113.10')).toBe(401)
      expect(await attempt('198.51.100.2, 203.0.113.10')).toBe(401)
      expect(await attempt('198.51.100.3, 203.0.113.10')).toBe(429)
    })

    test('clients behind a proxy that names ports, too, are counted one by one', async () => {
      for (const ip of ['203.0.113.30:1111', '203.0.113.31:1111', '[2001:db8:3::1]:1111', '2001:db8:4::1']) {
        expect([ip, await attempt(ip)]).toEqual([ip, 401])
      }
      expect(await attempt('203.0.113.30:2222')).toBe(401)
      expect(await attempt('203.0.113.30')).toBe(429)
    })

    test('registrations are counted, too', async () => {
      const register = (ip: string, email = `${crypto.randomUUID()}@example.com`) =>
        api.post('/auth/register', {
          json: { email, password: 'correct horse' },
          headers: { 'x-forwarded-for': ip },
        })
      const first = await register('203.0.113.20')
      expect([first.status, first.headers.get('ratelimit-policy')]).toEqual([201, '"register";q=1;w=3600'])
      const email = `${crypto.randomUUID()}@example.com`
      expect((await register('203.0.113.20', email)).status).toBe(429)
      // What was refused has made no account.
      expect((await register('203.0.113.21', email)).status).toBe(201)
    })
  },
  { TRUSTED_PROXIES: '127.0.0.1/32', LOGIN_LIMIT: '2', REGISTER_LIMIT: '1' },
)

onBothDatabases(
  'throttles without a trusted proxy',
  api => {
    test('a forged X-Forwarded-For does not count', async () => {
      expect((await signIn(api, 'unknown@example.com', 'wrong', '203.0.113.1')).status).toBe(401)
      expect((await signIn(api, 'unknown@example.com', 'wrong', '203.0.113.2')).status).toBe(429)
    })

    test('a client that speaks HTTP/1.0 and names no host is counted with its address', async () => {
      const account = () => ({ email: `${crypto.randomUUID()}@example.com`, password: 'correct horse' })
      const statuses = [(await api.post('/auth/register', { json: account() })).status]
      for (let i = 0; i < 2; i++) {
        const json = JSON.stringify(account())
        const head = `POST /api/v1/auth/register HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: ${json.length}`
        const answer = await exchange(api.url, Buffer.from(`${head}\r\n\r\n${json}`))
        statuses.push(Number(answer.slice('HTTP/1.1 '.length, 'HTTP/1.1 200'.length)))
      }
      expect(statuses).toEqual([201, 201, 429])
    })
  },
  { TRUSTED_PROXIES: '10.0.0.0/8', LOGIN_LIMIT: '1', REGISTER_LIMIT: '2' },
)

test('clients whose address is not known any more, because they hung up, are counted together', async () => {
  const throttle = createThrottle({} as Parameters<typeof createThrottle>[0], {
    loginsPerMinute: 1,
    failuresPerAccount: 0,
    registrationsPerHour: 0,
  })
  await throttle.limitCalls('login', null)
  await expect(throttle.limitCalls('login', null)).rejects.toMatchObject({ code: 'too_many_requests' })
})

test('a refusal is counted by its limit, and says in whole seconds, rounded up, when to try again', async () => {
  const throttle = createThrottle({} as Parameters<typeof createThrottle>[0], {
    loginsPerMinute: 1,
    failuresPerAccount: 0,
    registrationsPerHour: 1,
  })
  const limits = [
    ['login', '30'],
    ['register', '3570'],
  ] as const
  for (const [limit] of limits) await throttle.limitCalls(limit, '203.0.113.1')
  setSystemTime(Date.now() + 30_300)
  try {
    for (const [limit, seconds] of limits)
      await expect(throttle.limitCalls(limit, '203.0.113.1')).rejects.toMatchObject({
        headers: { 'retry-after': seconds, ratelimit: `"${limit}";r=0;t=${seconds}` },
      })
  } finally {
    setSystemTime()
  }
  expect(throttle.stats()).toEqual({ login: 1, register: 1, account: 0 })
})

onBothDatabases(
  'throttles of an account',
  api => {
    test('attempts from all addresses together are few, and the owner still signs in at the first one', async () => {
      const ada = await api.user()

      const attempts = await Promise.all(
        Array.from({ length: 20 }, () => signIn(api, ada.email, 'a wrong one', '203.0.113.66')),
      )

      const statuses = attempts.map(attempt => attempt.status).sort()
      // Five for the account and, when those are used up, one more for the address.
      expect(statuses).toEqual([...Array(6).fill(401), ...Array(14).fill(429)])
      const refused = attempts.find(attempt => attempt.status === 429)!
      expect(Number(refused.headers.get('retry-after'))).toBeWithin(1, 61)
      expect((await signIn(api, ada.email.toUpperCase(), ada.password, '198.51.100.7')).status).toBe(200)
    })

    test('right passwords at once are all right, more than the attempts that may fail', async () => {
      const ada = await api.user()

      const answers = await Promise.all(
        Array.from({ length: 12 }, () => signIn(api, ada.email, ada.password, '203.0.113.67')),
      )

      expect(answers.map(({ status }) => status)).toEqual(Array(12).fill(200))
    })

    test('attempts on one account keep no other user from signing in', async () => {
      const [ada, bob] = [await api.user(), await api.user()]
      const attempts = Array.from({ length: 90 }, () => signIn(api, ada.email, ada.password, '203.0.113.68'))
      const over = countSettled(attempts)
      const ofBob = await signIn(api, bob.email, bob.password, '203.0.113.68')

      expect(ofBob.status).toBe(200)
      expect(over()).toBeLessThan(60)
      expect((await Promise.all(attempts)).filter(({ status }) => status !== 200)).toEqual([])
    })

    test('a right password does not forget the wrong ones before it', async () => {
      const ada = await api.user()
      const statuses = []
      for (const password of ['a', 'b', 'c', ada.password, 'd', 'e', 'f', 'g'])
        statuses.push((await signIn(api, ada.email, password, '203.0.113.70')).status)

      expect(statuses).toEqual([401, 401, 401, 200, 401, 401, 401, 429])
    })

    test('right passwords use nothing up', async () => {
      const ada = await api.user()
      for (let i = 0; i < 12; i++) {
        expect((await signIn(api, ada.email, ada.password, '203.0.113.1')).status).toBe(200)
      }
    })

    test('attempts count for 15 minutes, an address waits a minute, and no counter names an account', async () => {
      const email = `${crypto.randomUUID()}@example.com`
      await api.sql('delete from rate_limits', [])

      for (let i = 0; i < 7; i++) await signIn(api, email, 'a wrong one', '203.0.113.67')

      const rows = await api.sql(
        'select key, ((expire - extract(epoch from now()) * 1000) / 1000)::float8 from rate_limits',
        [],
      )
      const secondsLeft = (kind: string) => rows.find(([key]) => String(key).startsWith(kind))![1]
      expect(rows).toHaveLength(2)
      expect(secondsLeft('account')).toBeWithin(15 * 60 - 60, 15 * 60 + 1)
      expect(secondsLeft('fallback')).toBeWithin(30, 61)
      for (const [key] of rows) expect(key).not.toContain(email.slice(0, 8))
    })

    test('the attempt that is left to an address is that of the whole /64 of an IPv6 address', async () => {
      const email = `${crypto.randomUUID()}@example.com`
      const attempt = async (ip: string) => (await signIn(api, email, 'a wrong one', ip)).status
      for (let i = 0; i < 5; i++) expect(await attempt('203.0.113.68')).toBe(401)

      expect(await attempt('2001:db8:5:6::1')).toBe(401)
      expect(await attempt('2001:db8:5:6::2')).toBe(429)
      expect(await attempt('2001:db8:5:7::1')).toBe(401)
    })

    test('the attempt that is left to an address is one for each account', async () => {
      const accounts = [crypto.randomUUID(), crypto.randomUUID()].map(name => `${name}@example.com`)
      const statuses = []
      for (const email of accounts)
        for (let i = 0; i < 7; i++)
          statuses.push((await signIn(api, email, 'a wrong one', '203.0.113.69')).status)

      expect(statuses).toEqual([...Array(6).fill(401), 429, ...Array(6).fill(401), 429])
    })

    test('the attempt that is left to an address is used up by a wrong password alone', async () => {
      const ada = await api.user()
      const ip = '198.51.100.9'
      for (let i = 0; i < 5; i++) await signIn(api, ada.email, 'a wrong one', '203.0.113.71')
      const { body } = await signIn(api, ada.email, ada.password, ip)
      const headers = { 'x-forwarded-for': ip }
      const json = { current_password: ada.password, new_password: 'another correct horse' }
      const changed = await api.post('/users/me/password', { token: body.access_token, json, headers })

      expect(changed.status).toBeWithin(200, 205)
      expect((await signIn(api, ada.email, 'a wrong one', ip)).status).toBe(401)
      expect((await signIn(api, ada.email, json.new_password, ip)).status).toBe(429)
    })

    test('an attempt that could not be checked does not count', async () => {
      const throttle = createThrottle(
        { query: api.sql },
        { loginsPerMinute: 0, failuresPerAccount: 1, registrationsPerHour: 0 },
      )
      const account = crypto.randomUUID()
      const busy = () => Promise.reject(new Error('busy'))

      for (let i = 0; i < 5; i++) {
        await expect(throttle.limitAttempts(on(account), from('203.0.113.1'), busy)).rejects.toThrow('busy')
      }
      expect(await throttle.limitAttempts(on(account), from('203.0.113.1'), async () => 'right')).toBe(
        'right',
      )
      // Neither does it count when one attempt is left to the address.
      await throttle.limitAttempts(on(account), from('203.0.113.2'), async () => undefined)
      for (let i = 0; i < 2; i++)
        await expect(throttle.limitAttempts(on(account), from('203.0.113.1'), busy)).rejects.toThrow('busy')
    })

    test('an attempt that is refused does not count: right ones at two replicas lock no address out', async () => {
      const replica = () =>
        createThrottle(
          { query: api.sql },
          { loginsPerMinute: 0, failuresPerAccount: 1, registrationsPerHour: 0 },
        )
      const [one, other] = [replica(), replica()]
      const account = on(crypto.randomUUID())
      await one.limitAttempts(account, from('203.0.113.2'), async () => undefined)
      const attempt = () => one.limitAttempts(account, from('203.0.113.1'), async () => 'right')

      // While the address makes its one attempt at the other replica, it makes another one here.
      await other.limitAttempts(account, from('203.0.113.1'), async () => {
        await expect(attempt()).rejects.toMatchObject({ code: 'too_many_requests' })
        return 'right'
      })

      for (let i = 0; i < 3; i++) expect(await attempt()).toBe('right')
    })

    test('an attempt is over when its counters are as they should be, not before', async () => {
      let pending = 0
      const query: typeof api.sql = (...statement) => {
        pending++
        return api.sql(...statement).finally(() => pending--)
      }
      const throttle = createThrottle(
        { query },
        { loginsPerMinute: 0, failuresPerAccount: 1, registrationsPerHour: 0 },
      )
      const account = crypto.randomUUID()

      // The last one is the one that is left to the address.
      for (const result of ['right', '', 'right']) {
        await throttle.limitAttempts(on(account), from('203.0.113.1'), async () => result)
        expect(pending).toBe(0)
      }
    })

    test('attempts on one account wait for each other, but for none whose client has hung up', async () => {
      const throttle = createThrottle(
        { query: api.sql },
        { loginsPerMinute: 0, failuresPerAccount: 5, registrationsPerHour: 0 },
      )
      const [account, order] = [crypto.randomUUID(), [] as string[]]
      const { promise: checked, resolve: finish } = Promise.withResolvers<void>()
      const hangUp = new AbortController()
      const another = () => throttle.limitAttempts(on(crypto.randomUUID()), from(null), async () => 'right')
      let late: Promise<unknown> | undefined
      const check = (name: string) => async () => {
        if (name === 'first') await checked
        if (name === 'last') {
          // It comes when none waits any more, and has time to overtake.
          late = throttle.limitAttempts(on(account), from(null), check('late'))
          for (let i = 0; i < 3; i++) await another()
        }
        return order.push(name)
      }

      const first = throttle.limitAttempts(on(account), from(null), check('first'))
      const gone = throttle.limitAttempts(on(account), { ip: null, signal: hangUp.signal }, check('gone'))
      const last = throttle.limitAttempts(on(account), from(null), check('last'))
      hangUp.abort()
      await expect(gone).rejects.toMatchObject({ code: 'bad_request' })
      expect(order).toEqual([])
      finish()
      await Promise.all([first, last])
      await late

      expect(order).toEqual(['first', 'last', 'late'])
    })

    test('a wrong password sends the same statements for an unknown account as for a known one', async () => {
      const client = { ...from('203.0.113.1'), userAgent: null }
      const sent: string[] = []
      const driver = observeDriver(api.driver, (_, text, run) => {
        sent.push(text)
        return run()
      })
      const parts = {
        db: createDb(driver),
        passwords: createPasswords({ cost: 4, atOnce: 1, waiting: 1 }),
        throttle: createThrottle(driver, {
          loginsPerMinute: 0,
          failuresPerAccount: 5,
          registrationsPerHour: 0,
        }),
      }
      const statementsOf = async (key: string) => {
        const account = { which: eq(users.normalizedEmail, key), key }
        await provePassword(parts, account, 'wrong', client, async () => undefined)
        return sent.splice(0)
      }
      const ada = await api.user()

      const known = await statementsOf(ada.email)
      expect(known).not.toEqual([])
      expect(await statementsOf(`${crypto.randomUUID()}@example.com`)).toEqual(known)
    })

    test('attempts on one account that wait are those of each address in turn', async () => {
      const throttle = createThrottle(
        { query: api.sql },
        { loginsPerMinute: 0, failuresPerAccount: 5, registrationsPerHour: 0 },
      )
      const [account, order] = [crypto.randomUUID(), [] as string[]]
      const attempt = (ip: string) =>
        throttle.limitAttempts(on(account), from(ip), async () => order.push(ip))
      const [one, other] = ['203.0.113.1', '203.0.113.2']
      await Promise.all([one, one, one, other].map(attempt))

      expect(order).toEqual([one, other, one, one])
    })

    test('of attempts on one account a hundred of an address may wait, and one of another has room', async () => {
      const throttle = createThrottle(
        { query: api.sql },
        { loginsPerMinute: 0, failuresPerAccount: 5, registrationsPerHour: 0 },
      )
      const account = on(crypto.randomUUID())
      const attempt = (ip: string) =>
        throttle.limitAttempts(account, from(ip), async () => 'right').catch(({ code }: AppError) => code)
      const [one, other] = ['203.0.113.1', '203.0.113.2']

      const answers = await Promise.all([...Array(102).fill(one), other].map(attempt))

      expect(answers).toEqual([...Array(101).fill('right'), 'unavailable', 'right'])
    })

    test('of attempts that are over nothing is kept in memory', async () => {
      const throttle = createThrottle(
        { query: api.sql },
        { loginsPerMinute: 0, failuresPerAccount: 1, registrationsPerHour: 0 },
      )
      /** Each queue of attempts has one. */
      const countMaps = () => {
        Bun.gc(true)
        return heapStats().objectTypeCounts.Map!
      }
      const before = countMaps()

      for (let i = 0; i < 200; i++)
        await throttle.limitAttempts(on(`${i}`), from('203.0.113.1'), async () => 'right')

      expect(countMaps() - before).toBeLessThan(100)
    })

    test('an attempt that cannot be checked takes those along that wait for it', async () => {
      const throttle = createThrottle(
        { query: api.sql },
        { loginsPerMinute: 0, failuresPerAccount: 5, registrationsPerHour: 0 },
      )
      const account = crypto.randomUUID()
      const away = new Error('the query failed', { cause: new AppError('unavailable') })
      let checks = 0
      const check = async () => {
        checks++
        throw away
      }
      const attempts = Array.from({ length: 3 }, () => throttle.limitAttempts(on(account), from(null), check))

      expect(await Promise.allSettled(attempts)).toEqual(Array(3).fill({ status: 'rejected', reason: away }))
      expect(checks).toBe(1)
      expect(await throttle.limitAttempts(on(account), from(null), async () => 'right')).toBe('right')
    })

    test('an attempt that finds no room for its password takes none of another address along', async () => {
      const throttle = createThrottle(
        { query: api.sql },
        { loginsPerMinute: 0, failuresPerAccount: 5, registrationsPerHour: 0 },
      )
      const { hash } = createPasswords({ cost: 8, atOnce: 1, waiting: 2 })
      const account = crypto.randomUUID()
      const busy = from('203.0.113.1')
      // One is hashed, one waits: an address has half of the places.
      const hashed = [hash('correct horse', busy), hash('correct horse', busy)]
      const refused = throttle.limitAttempts(on(account), busy, () => hash('correct horse', busy))
      const owner = throttle.limitAttempts(on(account), from('203.0.113.2'), async () => 'right')

      expect(await Promise.allSettled([refused, owner])).toEqual([
        { status: 'rejected', reason: expect.objectContaining({ code: 'unavailable' }) },
        { status: 'fulfilled', value: 'right' },
      ])
      await Promise.all(hashed)
    })

    test.each([
      ['where the user is signed in', 5, '2001:db8:8:1::1'],
      ['without a limit', 0, '203.0.113.1'],
    ])('an attempt %s waits for none from elsewhere', async (_, failuresPerAccount, address) => {
      const throttle = createThrottle(
        { query: api.sql },
        { loginsPerMinute: 0, failuresPerAccount, registrationsPerHour: 0 },
      )
      const account = on(crypto.randomUUID(), '198.51.100.1', address)
      const { promise: checked, resolve: finish } = Promise.withResolvers<string>()

      const first = throttle.limitAttempts(account, from('203.0.113.1'), () => checked)
      const second = throttle.limitAttempts(
        account,
        from(address.replace('::1', '::2')),
        async () => 'second',
      )
      expect(await Promise.race([first, second])).toBe('second')
      finish('first')
      expect(await first).toBe('first')
    })

    test('a flood from many addresses keeps no user out who is signed in elsewhere', async () => {
      const ada = await api.user()
      const home = '198.51.100.20'
      expect((await signIn(api, ada.email, ada.password, home)).status).toBe(200)
      const flood = Array.from({ length: 40 }, (_, i) =>
        signIn(api, ada.email, 'a wrong one', `203.0.113.${100 + i}`),
      )
      const over = countSettled(flood)
      const atHome = await signIn(api, ada.email, ada.password, home)

      expect(atHome.status).toBe(200)
      expect(over()).toBeLessThan(30)
      expect((await Promise.all(flood)).filter(({ status }) => status !== 401)).toEqual([])
    })

    test('a counter that is out of reach refuses no attempt: it says so', async () => {
      const away = () => Promise.reject(new Error('away'))
      const throttle = createThrottle(
        { query: away },
        { loginsPerMinute: 0, failuresPerAccount: 1, registrationsPerHour: 0 },
      )
      await expect(throttle.limitAttempts(on('ada'), from(null), async () => 'right')).rejects.toThrow('away')
    })

    test('a wrong current password counts as an attempt to sign in, whatever the case of the address', async () => {
      const ada = await api.user(`Ada-${crypto.randomUUID()}@Example.com`)
      const tryDelete = async (headers = {}) =>
        (await api.delete('/users/me', { token: ada.token, json: { password: 'a wrong one' }, headers }))
          .status

      const statuses = []
      for (let i = 0; i < 7; i++) statuses.push(await tryDelete())

      expect(statuses).toEqual([...Array(6).fill(400), 429])
      expect((await signIn(api, ada.email.toLowerCase(), ada.password, '127.0.0.1')).status).toBe(429)
      expect(await tryDelete({ 'x-forwarded-for': '203.0.113.71' })).toBe(400)
    })
  },
  { TRUSTED_PROXIES: '127.0.0.1/32', LOGIN_FAILURE_LIMIT: '5' },
)
