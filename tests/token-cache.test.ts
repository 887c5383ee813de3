import { expect, spyOn, test } from 'bun:test'
import { createDb } from '../src/db/drizzle.ts'
import { observeDriver } from '../src/db/instrumented-driver.ts'
import { sessionScopes } from '../src/lib/scope.ts'
import type { UserId } from '../src/lib/user-id.ts'
import { createApiTokens } from '../src/modules/auth/api-tokens.ts'
import { createRefreshTokens } from '../src/modules/auth/refresh-tokens.ts'
import { createSessions } from '../src/modules/auth/sessions.ts'
import type { Revocations } from '../src/modules/auth/token-cache.ts'
import * as tokenCaches from '../src/modules/auth/token-cache.ts'
import { createTokens } from '../src/modules/auth/tokens.ts'
import { makeApiToken } from './support/api-token.ts'
import { bareApp } from './support/bare-app.ts'
import { onBothDatabases, testSettings } from './support/harness.ts'

const { createTokenCache } = tokenCaches

const caller = { id: 'ada' as UserId, sessionId: 'one', scopes: sessionScopes }
const hour = 3_600_000

/** The clocks are the test's own: one that only runs on, and that of the database, which may step. */
function setUp() {
  const world = {
    elapsed: 1_000_000,
    database: 1_800_000_000_000,
    ends: [] as string[],
    polls: 0,
    away: false,
  }
  const cache = createTokenCache(
    async () => {
      world.polls++
      if (world.away) throw new Error('the database is away')
      return { databaseTime: world.database, sessionIds: world.ends }
    },
    undefined,
    () => world.elapsed,
  )

  function pass(milliseconds: number) {
    world.elapsed += milliseconds
    world.database += milliseconds
  }

  /** Lets time go by as it does under load: a request with the token every 50 ms. Returns the answers. */
  async function busy(milliseconds: number) {
    const seen = new Set<unknown>()
    for (let passed = 0; passed < milliseconds; passed += 50) {
      seen.add(cache.caller('token'))
      await Promise.resolve()
      await Promise.resolve()
      pass(50)
    }
    return seen
  }

  /** The token was found good just now; by default it and its session have an hour left. */
  function remember({ leftMs = hour, name = 'token' } = {}) {
    cache.remember(name, caller, world.elapsed, leftMs)
  }

  return { world, cache, pass, busy, remember }
}

const known = new Set<unknown>([caller])
const unknown = new Set<unknown>([undefined])

test('a busy token costs four questions a second for all tokens together, and no look at its session', async () => {
  const { world, busy, remember } = setUp()
  remember()

  expect(await busy(60_000)).toEqual(known)

  expect(world.polls).toBeWithin(150, 241)
})

test('nothing is known of a token when it or its session has ended', async () => {
  const { busy, remember } = setUp()
  remember({ leftMs: 1000 })

  expect(await busy(1000)).toEqual(known)
  expect(await busy(200)).toEqual(unknown)
})

test('an API token without an end is known for ever', async () => {
  const { busy, remember } = setUp()
  remember({ leftMs: Number.POSITIVE_INFINITY })

  expect(await busy(290_000)).toEqual(known)
})

test('a session that ended elsewhere is forgotten with the next answer', async () => {
  const { world, cache, busy, remember } = setUp()
  remember()
  await busy(1000)

  world.ends = ['one']
  await busy(600)
  expect(cache.caller('token')).toBeUndefined()
})

test('a token of a session that ended elsewhere does not come back when the note of the end is old', async () => {
  const { world, busy, remember } = setUp()
  remember()
  await busy(1000)
  world.ends = ['one']
  await busy(15_000)

  world.ends = []

  expect(await busy(3000)).toEqual(unknown)
  // By then no replica remembers it, and nor does this one.
  remember()
  expect(await busy(1000)).toEqual(known)
})

test('nor does one of a session that ended here', async () => {
  const { cache, busy, remember } = setUp()
  remember()
  await busy(1000)

  cache.revoke(['one'])

  expect(await busy(3000)).toEqual(unknown)
})

test('nor one that was being looked up while its session ended', async () => {
  const { world, busy, remember } = setUp()
  world.ends = ['one']
  await busy(1000)

  remember()
  world.ends = []

  expect(await busy(3000)).toEqual(unknown)
})

test('nor does one of a session that ended here before another one did', () => {
  const { cache, remember } = setUp()
  cache.revoke(['one'])
  cache.revoke(['two'])

  remember()

  expect(cache.caller('token')).toBeUndefined()
})

test('what a session has left counts from before it was looked up', async () => {
  const { world, cache, busy } = setUp()
  await busy(1000)
  cache.remember('token', caller, world.elapsed - 600, 1000)

  expect(await busy(400)).toEqual(known)
  expect(await busy(200)).toEqual(unknown)
})

test('an answer counts from the moment of its question', async () => {
  let now = 0
  const answers: ((revocations: Revocations) => void)[] = []
  const poll = () => new Promise<Revocations>(resolve => answers.push(resolve))
  const cache = createTokenCache(poll, undefined, () => now)
  cache.remember('token', caller, 0, hour)
  cache.caller('token')

  now = 650
  answers[0]!({ databaseTime: 0, sessionIds: [] })
  await Promise.resolve()
  now = 720

  expect(cache.caller('token')).toBeUndefined()
  // The second question stays the only one until it is answered.
  now = 2000
  cache.caller('token')
  expect(answers).toHaveLength(2)
})

test('while no answers come, every session is looked up by itself, and no more when they come again', async () => {
  const { world, cache, busy, remember } = setUp()
  remember()
  await busy(1000)

  world.away = true
  await busy(1500)
  expect(cache.caller('token')).toBeUndefined()

  world.away = false
  remember()
  expect(await busy(1500)).toEqual(known)
})

test('after a silence nothing from before it is trusted', async () => {
  const { pass, busy, remember } = setUp()
  remember()
  await busy(1000)

  pass(60_000)

  expect(await busy(1000)).toEqual(unknown)
})

test('a session is looked up again after five minutes, whatever the answers say', async () => {
  const { busy, remember } = setUp()
  remember()

  expect(await busy(299_000)).toEqual(known)
  await busy(1100)
  expect(await busy(1000)).toEqual(unknown)
})

test('a clock of the machine that is set back keeps no token alive', () => {
  const cache = createTokenCache(() => Promise.reject(new Error('the database is away')))
  const stepped = spyOn(Date, 'now').mockReturnValue(0)
  try {
    cache.remember('unseen for 700 ms', caller, performance.now() - 700, hour)
    cache.remember('ended', caller, performance.now() - 1, 1)

    expect([cache.caller('unseen for 700 ms'), cache.caller('ended')]).toEqual([undefined, undefined])
  } finally {
    stepped.mockRestore()
  }
})

test('when the database’s clock has jumped over ends that no poll has seen, every session is looked up by itself', async () => {
  const { world, cache, busy, remember } = setUp()
  remember()
  await busy(1000)

  // This machine was suspended, or the database's clock set forward: the window begins after the end.
  world.database += 8000
  await busy(1000)

  expect(cache.caller('token')).toBeUndefined()
  remember()
  expect(await busy(1000)).toEqual(known)
})

test('the oldest of too many is forgotten, and one that was found good again is not the oldest', () => {
  const { cache, remember } = setUp()
  for (let i = 0; i < 9999; i++) remember({ name: `token ${i}` })
  remember({ name: 'token 0' })
  for (let i = 9999; i < 10_001; i++) remember({ name: `token ${i}` })

  expect(cache.size).toBe(10_000)
  expect(cache.caller('token 0')).toBe(caller)
  expect(cache.caller('token 1')).toBeUndefined()
  expect(cache.caller('token 10000')).toBe(caller)
})

test('beside ten thousand tokens there is room for those of all streams, which are checked several times a second', () => {
  const made = spyOn(tokenCaches, 'createTokenCache')
  bareApp({}, { STREAMS_MAX: '20000' })
  const rooms = made.mock.calls.map(([, tokensMax]) => tokensMax)
  made.mockRestore()

  expect(rooms).toEqual([30_000])
})

onBothDatabases('a token is remembered', api => {
  /** The sessions of a service that notes when it asks the database. */
  function setUpSessions() {
    const askedAt: number[] = []
    const driver = observeDriver(api.driver, (_, _text, run) => {
      askedAt.push(performance.now())
      return run()
    })
    const tokenCache = createTokenCache(async () => ({ databaseTime: 0, sessionIds: [] }))
    const db = createDb(driver)
    const secretKey = testSettings.SECRET_KEY
    const withPassword = () => Promise.reject(new Error('not needed here'))
    const tokens = createTokens({ secretKey, algorithm: 'HS256', lifetimeSeconds: 60 })
    const sessions = createSessions({
      db,
      tokens,
      refreshTokens: createRefreshTokens(secretKey),
      apiTokens: createApiTokens({ db, tokenCache, withPassword }),
      tokenCache,
    })
    return { askedAt, tokenCache, tokens, sessions }
  }

  test('as long as its session or itself has left, from before it was looked up', async () => {
    const { askedAt, tokenCache, tokens, sessions } = setUpSessions()
    const remember = spyOn(tokenCache, 'remember')
    const ada = await api.user()
    const { token } = await makeApiToken(api, ada)
    await api.sql(`update sessions set expires_at = now() + interval '3 hours' where user_id = $1`, [ada.id])
    await api.sql(`update api_tokens set expires_at = now() + interval '5 hours' where user_id = $1`, [
      ada.id,
    ])
    const [session] = await api.sql('select id from sessions where user_id = $1', [ada.id])
    const short = await tokens.sign(ada.id, session![0] as string)

    for (const [bearer, leftHours] of [
      [ada.token, 3],
      // Its own minute.
      [short, 1 / 60],
      [token, 5],
    ] as const) {
      askedAt.length = 0
      const caller = await sessions.authenticate(bearer)

      const [, , checkedAt, leftMs] = remember.mock.lastCall!
      expect(leftMs).toBeWithin((leftHours - 1 / 120) * hour, leftHours * hour + 1)
      expect(checkedAt).toBeLessThanOrEqual(askedAt[0]!)
      expect(tokenCache.caller(bearer)).toEqual(caller)
    }
    const endless = await makeApiToken(api, ada, ['tasks:read'], { expires_at: null })
    await sessions.authenticate(endless.token)
    expect(remember.mock.lastCall![3]).toBe(Number.POSITIVE_INFINITY)
  })
})
