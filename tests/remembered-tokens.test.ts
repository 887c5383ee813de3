import { expect, test } from 'bun:test'
import { createRememberedTokens } from '../src/modules/auth/remembered-tokens.ts'

/** The clock is the test's own; the question to the database is answered by `ends`. */
function setUp() {
  const world = { now: 1_000_000, ends: [] as string[], asked: 0, away: false }
  const remembered = createRememberedTokens(
    async () => {
      world.asked++
      if (world.away) throw new Error('the database is away')
      return world.ends
    },
    () => world.now,
  )
  /** Lets time go by as it does under load: a request with the token every 50 ms. */
  async function busy(token: string, milliseconds: number) {
    let last: unknown
    for (const until = world.now + milliseconds; world.now < until; world.now += 50) {
      last = remembered.caller(token)
      await Promise.resolve()
      await Promise.resolve()
    }
    return last
  }
  return { world, remembered, busy }
}

const caller = { id: 'ada', sessionId: 'one' }
const inAnHour = (now: number) => now + 3_600_000

test('a busy token costs four questions a second for all tokens together, and no look at its session', async () => {
  const { world, remembered, busy } = setUp()
  remembered.remember('token', caller, inAnHour(world.now), world.now)

  expect(await busy('token', 60_000)).toBe(caller)

  expect(world.asked).toBeWithin(150, 241)
})

test('a token is not remembered past its end', async () => {
  const { world, remembered, busy } = setUp()
  remembered.remember('token', caller, world.now + 1000, world.now)

  expect(await busy('token', 900)).toBe(caller)
  expect(await busy('token', 200)).toBeUndefined()
  expect(remembered.claims('token')).toBeUndefined()
})

test('a session that ended elsewhere is forgotten with the next answer', async () => {
  const { world, remembered, busy } = setUp()
  remembered.remember('token', caller, inAnHour(world.now), world.now)
  await busy('token', 1000)

  world.ends = ['one']
  expect(await busy('token', 600)).toBeUndefined()
  // Also by a look at the session that was under way when it ended.
  remembered.remember('token', caller, inAnHour(world.now), world.now)
  expect(remembered.caller('token')).toBeUndefined()
})

test('while no answers come, every session is looked up by itself', async () => {
  const { world, remembered, busy } = setUp()
  remembered.remember('token', caller, inAnHour(world.now), world.now)
  await busy('token', 1000)

  world.away = true
  expect(await busy('token', 1500)).toBeUndefined()
  expect(remembered.claims('token')).toMatchObject({ sub: 'ada', sid: 'one' })
})

test('after a silence nothing from before it is trusted', async () => {
  const { world, remembered, busy } = setUp()
  remembered.remember('token', caller, inAnHour(world.now), world.now)
  await busy('token', 1000)

  world.now += 60_000

  expect(await busy('token', 1000)).toBeUndefined()
})

test('the oldest of too many is forgotten', () => {
  const { world, remembered } = setUp()
  for (let i = 0; i < 10_001; i++) remembered.remember(`token ${i}`, caller, inAnHour(world.now), world.now)

  expect(remembered.size).toBe(10_000)
  expect(remembered.caller('token 0')).toBeUndefined()
  expect(remembered.caller('token 10000')).toBe(caller)
})
