import { afterEach, expect, jest, test } from 'bun:test'
import fc from 'fast-check'
import postgres from 'postgres'
import type { QueryOptions } from '../src/db/driver.ts'
import { createPool, openingSecondsMax } from '../src/db/postgres/pool.ts'
import { createPoolConnection } from '../src/db/postgres/pool-connection.ts'
import { withTimeBudget } from '../src/db/time-budget.ts'
import { AppError } from '../src/lib/errors.ts'
import { createFairQueue } from '../src/lib/fair-queue.ts'
import { errorFields } from '../src/telemetry/log.ts'

/** What a server does with a connection that is being opened. */
type Opening = 'accepts' | 'refuses' | 'hangs'

/** A pool on scripted connections; a statement's text says what becomes of it. */
function scripted(size: number, { isReadOnly = false, isProxied = false, mayPrepare = true } = {}) {
  let opening: Opening = 'accepts'
  const made: ReturnType<typeof connection>[] = []
  let refusals = 0
  let paused: Promise<void> | undefined

  function connection() {
    const { promise: gone, reject: lose } = Promise.withResolvers<never>()
    gone.catch(() => {})
    const asked: string[] = []
    const prepared: string[] = []
    let last: Promise<unknown> = Promise.resolve()
    const self = {
      asked,
      /** Those of `asked` that were to be prepared. */
      prepared,
      lost: false,
      /** Says no more, as after a cable was cut. */
      silent: false,
      isReadOnly,
      isProxied,
      ended: 0,
      destroyed: 0,
      async ask(text: string, _: unknown, { prepare }: QueryOptions) {
        asked.push(text)
        if (prepare) prepared.push(text)
        if (text === 'write') throw new postgres.PostgresError({ code: '25006' } as never)
        const [, pause] = /^wait (\d+)/.exec(text) ?? []
        // One after another, as a session does.
        last = last.then(() =>
          text.startsWith('hang') || self.silent ? gone : pause ? Bun.sleep(Number(pause)) : paused,
        )
        await Promise.race([last, gone])
        return [[1]]
      },
      async end() {
        self.lost = true
        self.ended++
        lose(new AppError('unavailable'))
      },
      cancel: async () => {},
      destroy() {
        self.lost = true
        self.destroyed++
        lose(new AppError('unavailable'))
      },
    }
    return self
  }

  const connect = async () => {
    const how = opening
    if (how === 'hangs') await Bun.sleep(openingSecondsMax * 1000)
    if (how !== 'accepts') {
      refusals++
      throw new Error('refused')
    }
    const self = connection()
    made.push(self)
    return createPoolConnection(self, mayPrepare)
  }
  return {
    ...createPool(connect, size),
    made,
    refusals: () => refusals,
    become(now: Opening) {
      opening = now
    },
    /** Lets the server answer nothing for that long. */
    pause(ms: number) {
      paused = Bun.sleep(ms)
    },
  }
}

const ask = ({ query }: ReturnType<typeof scripted>, text = 'quick', prepare = false) =>
  query(text, [], { prepare }).then(
    () => 'answered',
    () => 'refused',
  )

/** Runs `work` as a part of a request of this user, or from this address. */
const as = <T>(caller: string, work: () => Promise<T>) => withTimeBudget(work, () => caller)

afterEach(() => {
  jest.useRealTimers()
})

test('after any losses, refusals and openings that hang, the pool answers within 2 s of the return', async () => {
  const event = fc.oneof(
    fc.record({ opening: fc.constantFrom<Opening>('accepts', 'refuses', 'hangs') }),
    fc.record({ lose: fc.constantFrom('all', 'one') }),
    fc.record({ silence: fc.constantFrom('all', 'one') }),
    fc.record({ callers: fc.integer({ min: 1, max: 6 }) }),
    fc.record({ pause: fc.integer({ min: 0, max: 2500 }) }),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(event, { maxLength: 12 }), fc.boolean(), async (events, hasCallers) => {
      const time = fakeTime()
      const pool = scripted(3)
      for (const event of events) {
        if ('opening' in event) pool.become(event.opening)
        if ('lose' in event) for (const each of pool.made.slice(event.lose === 'all' ? 0 : -1)) each.destroy()
        if ('silence' in event)
          for (const each of pool.made.slice(event.silence === 'all' ? 0 : -1)) each.silent = true
        if ('callers' in event) for (let i = 0; i < event.callers; i++) void ask(pool)
        if ('pause' in event) await time.pass(event.pause)
        else await time.pass(0)
      }
      pool.become('accepts')
      // A connection that is silent and idle is noticed by its next caller, and by no one before.
      const isNoticed = hasCallers || pool.made.some(({ silent, lost }) => silent && !lost)
      for (let passed = 0; passed < 2100; passed += 100) {
        if (isNoticed) void ask(pool)
        await time.pass(100)
      }
      let outcome: string | undefined
      void ask(pool).then(result => {
        outcome = result
      })
      await time.pass(100)
      expect(outcome).toBe('answered')
      void pool.close(0)
      await time.pass(100)
    }),
    { numRuns: 300 },
  )
}, 60_000)

test('a job is settled within 2 s whatever its connection does', async () => {
  const time = fakeTime()
  const pool = scripted(2)
  const outcomes = Promise.all(Array.from({ length: 9 }, () => ask(pool, 'hang')))
  let settled = false
  void outcomes.then(() => {
    settled = true
  })
  await time.pass(1850)
  expect(settled).toBe(false)
  await time.pass(150)

  expect(await outcomes).toEqual(Array(9).fill('refused'))
})

test('while the database is away it is asked one connection at a time, with a pause; callers are refused, and after the close nothing is asked', async () => {
  const time = fakeTime()
  const pool = scripted(5)
  pool.become('refuses')
  expect(await Promise.all(Array.from({ length: 5 }, () => ask(pool)))).toEqual(Array(5).fill('refused'))
  expect(pool.stats().away).toBe(true)
  const before = pool.refusals()
  await time.pass(3000)

  expect(await ask(pool)).toBe('refused')
  expect(pool.refusals() - before).toBeWithin(8, 13)

  await pool.close()
  const atLast = pool.refusals()
  await time.pass(1000)
  expect(pool.refusals()).toBe(atLast)
})

test('a connection whose time is over is used no more, and ended', async () => {
  const time = fakeTime()
  const pool = scripted(2, { isReadOnly: true })
  expect(await ask(pool)).toBe('answered')
  await time.pass(1100)
  expect(await ask(pool)).toBe('answered')

  expect(pool.made.map(({ ended }) => ended)).toEqual([1, 0])
})

test.each([
  [false, [1, 0]],
  [true, [0]],
])(
  'a server that refuses a write is left, unless it has refused writes from the beginning (%p)',
  async (isReadOnly, ended) => {
    fakeTime()
    const pool = scripted(1, { isReadOnly })
    expect([await ask(pool, 'write'), await ask(pool)]).toEqual(['refused', 'answered'])

    expect(pool.made.map(({ ended }) => ended)).toEqual(ended)
  },
)

test('a connection is replaced after half an hour to an hour', async () => {
  const time = fakeTime()
  const pool = scripted(2)
  await ask(pool)
  await time.pass(29 * 60 * 1000, 60_000)
  await ask(pool)
  expect(pool.made).toHaveLength(1)
  await time.pass(32 * 60 * 1000, 60_000)
  await ask(pool)

  expect(pool.made.map(({ ended }) => ended)).toEqual([1, 0])
})

test('connections that were opened together are not replaced together', async () => {
  const time = fakeTime()
  const pool = scripted(8, { isReadOnly: true })
  for (let i = 0; i < 8; i++) void ask(pool, 'wait 10')
  await time.pass(600)
  expect(pool.made.map(({ ended }) => ended)).toContain(0)
  await time.pass(500)

  expect(pool.made.map(({ ended }) => ended)).toEqual(Array(8).fill(1))
})

test('a connection that opens after the close is dropped', async () => {
  const time = fakeTime()
  const pool = scripted(1)
  pool.become('hangs')
  const outcome = ask(pool)
  expect(pool.stats()).toMatchObject({ inUse: 0, opening: 1, waiting: 1 })
  const closed = pool.close(0.05)
  pool.become('accepts')
  await time.pass(60)
  await closed
  expect(await outcome).toBe('refused')

  const late = scripted(1)
  const call = ask(late)
  void late.close(0)
  await time.pass(100)
  expect(await call).toBe('refused')
  expect(late.made.filter(({ lost }) => !lost)).toEqual([])
})

test('when one connection is silent, those that were quiet for half a second are dropped, too', async () => {
  const time = fakeTime()
  const pool = scripted(4)
  const four = Promise.all([1, 2, 3, 4].map(i => ask(pool, `wait 10 for ${i}`)))
  await time.pass(20)
  await four
  void ask(pool, 'hang')
  await time.pass(1000)
  void ask(pool, 'hang a second later')
  await time.pass(800)
  void ask(pool, 'hang just now')
  await time.pass(250)

  expect(pool.made.map(({ destroyed }) => destroyed > 0)).toEqual([true, true, false, true])
})

test('nothing is sent over a connection that is lost', async () => {
  const pool = scripted(2)
  await ask(pool)
  pool.made[0]!.lost = true
  await ask(pool)
  await pool.close()

  expect(pool.made.map(({ asked }) => asked.length)).toEqual([1, 1])
  expect(pool.made.map(({ ended }) => ended)).toEqual([0, 1])
})

test('at most four statements are on their way on a connection', async () => {
  const time = fakeTime()
  const pool = scripted(1)
  await ask(pool, 'quick', true)
  for (let i = 0; i < 9; i++) void ask(pool, `wait 100 for ${i}`, true)
  await time.pass(0)

  expect(pool.made[0]!.asked).toHaveLength(1 + 4)
})

test('four connections are opened for statements that are quick, and no more', async () => {
  const time = fakeTime()
  const pool = scripted(10)
  await ask(pool, 'quick', true)
  for (let atOnce = 2; atOnce <= 8; atOnce++) {
    for (let i = 0; i < atOnce; i++) void ask(pool, `wait 1 for ${i}`, true)
    await time.pass(4, 1)
  }

  expect(pool.made).toHaveLength(4)
})

test('of busy connections the least loaded one is used', async () => {
  const time = fakeTime()
  const pool = scripted(2)
  for (const text of ['wait 1', 'wait 2']) void ask(pool, text, true)
  await time.pass(3, 1)
  for (let i = 0; i < 4; i++) void ask(pool, `wait 3 for ${i}`, true)
  await time.pass(0)

  expect(pool.made.map(({ asked }) => asked)).toEqual([
    ['wait 1', 'wait 3 for 0', 'wait 3 for 2'],
    ['wait 2', 'wait 3 for 1', 'wait 3 for 3'],
  ])
})

test('nothing is sent behind a statement when the one before took long', async () => {
  const time = fakeTime()
  const pool = scripted(1)
  for (const text of ['wait 20', 'wait 1', 'quick']) void ask(pool, text, true)
  await time.pass(20)
  // The connection was silent for long, and has answered a moment ago.
  expect(pool.made[0]!.asked).toEqual(['wait 20', 'wait 1'])
  await time.pass(1)

  expect(pool.made[0]!.asked).toEqual(['wait 20', 'wait 1', 'quick'])
})

test('nothing is sent behind a statement that takes long', async () => {
  const time = fakeTime()
  const pool = scripted(1)
  await ask(pool, 'quick', true)
  void ask(pool, 'wait 100', true)
  await time.pass(20)
  void ask(pool, 'quick', true)
  await time.pass(50)
  expect(pool.made[0]!.asked).toEqual(['quick', 'wait 100'])
  await time.pass(50)

  expect(pool.made[0]!.asked).toEqual(['quick', 'wait 100', 'quick'])
})

test('a connection that is always busy is replaced, too, when its time is over', async () => {
  const time = fakeTime()
  const pool = scripted(1, { isReadOnly: true })
  for (let i = 0; i < 400; i++) {
    void ask(pool, 'wait 4', true)
    await time.pass(3, 1)
  }

  expect(pool.made[0]!.ended).toBe(1)
  expect(pool.made.length).toBeGreaterThan(1)
})

test('a transaction that is not over in time loses its connection', async () => {
  const time = fakeTime()
  const pool = scripted(1)
  void ask(pool, 'wait 1000')
  await time.pass(10)
  const outcome = pool.transaction(() => new Promise(() => {})).catch(error => error)
  await time.pass(2000)

  expect(await outcome).toMatchObject({ code: 'unavailable' })
  expect(pool.made.map(({ destroyed }) => destroyed)).toEqual([1])
})

test('a statement that is not prepared has its connection to itself', async () => {
  const time = fakeTime()
  const pool = scripted(1)
  await ask(pool, 'quick', true)
  void ask(pool, 'wait 50', false)
  void ask(pool, 'quick', true)
  await time.pass(0)
  expect(pool.made[0]!.asked).toEqual(['quick', 'wait 50'])
  await time.pass(60)

  expect(pool.made[0]!.asked).toEqual(['quick', 'wait 50', 'quick'])
})

test.each([
  [{}, ['quick', 'wait 4', 'quick'], ['quick', 'wait 4', 'quick']],
  [{ isProxied: true }, ['quick', 'wait 4'], []],
  [{ mayPrepare: false }, ['quick', 'wait 4'], []],
])('behind a proxy nothing is prepared or pipelined: %j', async (options, asked, prepared) => {
  const time = fakeTime()
  const pool = scripted(1, options)
  await ask(pool, 'quick', true)
  for (const text of ['wait 4', 'quick']) void ask(pool, text, true)
  await time.pass(0)

  expect(pool.made[0]).toMatchObject({ asked, prepared })
})

test('a statement that is not prepared is sent behind no other', async () => {
  const time = fakeTime()
  const pool = scripted(1)
  await ask(pool, 'quick', true)
  void ask(pool, 'wait 4', true)
  void ask(pool, 'wait 1', false)
  await time.pass(0)
  expect(pool.made[0]!.asked).toEqual(['quick', 'wait 4'])
  await time.pass(10)

  expect(pool.made[0]!.asked).toEqual(['quick', 'wait 4', 'wait 1'])
})

test('a job that was refused while it waited is never sent', async () => {
  const time = fakeTime()
  const pool = scripted(1)
  void ask(pool, 'hang')
  const late = ask(pool, 'late')
  await time.pass(3000)

  expect(await late).toBe('refused')
  expect(await ask(pool)).toBe('answered')
  expect(pool.made.flatMap(({ asked }) => asked)).toEqual(['hang', 'quick'])
})

test('a job for which no connection could be opened has one soon, while another job takes long', async () => {
  const time = fakeTime()
  const pool = scripted(2)
  void ask(pool, 'wait 1500')
  await time.pass(10)
  pool.become('refuses')
  const outcome = ask(pool)
  await time.pass(0)
  pool.become('accepts')
  await time.pass(350)

  expect(pool.made.map(({ asked }) => asked)).toEqual([['wait 1500'], ['quick']])
  expect(await outcome).toBe('answered')
})

test('a text that waits for a lock costs one connection, and the others go on', async () => {
  const time = fakeTime()
  const pool = scripted(2)
  const order: string[] = []
  const note = (text: string) => void ask(pool, text).then(() => order.push(text))
  note('wait 1000 locked')
  await time.pass(600)
  for (let i = 0; i < 3; i++) note('wait 1000 locked')
  for (let i = 0; i < 4; i++) note('wait 5 other')
  await time.pass(200)
  expect(order).toEqual(Array(4).fill('wait 5 other'))
  await time.pass(300)
  note('wait 5 other')
  await time.pass(50)

  expect(order).toEqual([...Array(4).fill('wait 5 other'), 'wait 1000 locked', 'wait 5 other'])
})

test('statements of a text that is slow have half of the connections, those of one caller a quarter', async () => {
  const time = fakeTime()
  const pool = scripted(9)
  const askAs = (caller: string, text: string) => as(caller, () => ask(pool, text, true))
  void askAs('ada', 'wait 700 search')
  await time.pass(600)
  for (let i = 0; i < 4; i++) void askAs('ada', 'wait 700 search')
  await time.pass(20)
  expect(pool.stats()).toMatchObject({ inUse: 2, waiting: 3 })
  for (const caller of ['bob', 'eve', 'kim']) void askAs(caller, 'wait 700 search')
  await time.pass(20)
  expect(pool.stats()).toMatchObject({ inUse: 4, waiting: 4 })
  const others = [askAs('ada', 'quick'), askAs('bob', 'wait 5 other search')]
  others.push(as('bob', () => pool.transaction(query => query('quick', []).then(() => 'answered'))))
  await time.pass(20)

  expect(await Promise.all(others)).toEqual(Array(3).fill('answered'))
})

test.each([3, 4])('of %d connections transactions and slow statements together leave one', async size => {
  const time = fakeTime()
  const pool = scripted(size)
  void as('ada', () => ask(pool, 'wait 1000 locked'))
  await time.pass(600)
  for (const caller of ['bob', 'eve', 'kim']) {
    void as(caller, () => ask(pool, 'wait 1000 locked'))
    void as(caller, () => pool.transaction(query => query('wait 1000', [])))
  }
  await time.pass(10)
  const outcome = as('joe', () => ask(pool, 'quick'))
  await time.pass(10)

  expect(await outcome).toBe('answered')
})

test.each([
  ['within four seconds', 4000, 4],
  ['afterwards', 4800, 6],
])('of a text that was slow %s, after %d ms, %d run at once', async (_, afterMs, inUse) => {
  const time = fakeTime()
  const pool = scripted(8)
  void ask(pool, 'wait 600 locked')
  await time.pass(afterMs)
  for (let i = 0; i < 6; i++) void ask(pool, 'wait 600 locked')
  await time.pass(10)

  expect(pool.stats()).toMatchObject({ inUse, waiting: 6 - inUse })
})

test('after a pause of the server a text is no longer slow', async () => {
  const time = fakeTime()
  const pool = scripted(8)
  pool.pause(800)
  for (let i = 0; i < 8; i++) void ask(pool, 'quick', true)
  await time.pass(600)
  void ask(pool, 'quick', true)
  await time.pass(300)
  pool.pause(10)
  for (let i = 0; i < 8; i++) void ask(pool, 'quick', true)
  await time.pass(0)

  expect(pool.stats().waiting).toBe(0)
})

test('a hundred jobs for each connection may wait, and the next is refused', async () => {
  const time = fakeTime()
  const pool = scripted(2)
  const outcomes: string[] = []
  for (let i = 0; i < 201; i++) void ask(pool, 'wait 500').then(outcome => outcomes.push(outcome))
  await time.pass(0)

  expect(outcomes).toEqual(['refused'])
})

test('a job that is refused says why', async () => {
  const time = fakeTime()
  const pool = scripted(1)
  const reasonOf = () => pool.query('hang', []).catch(error => errorFields(error).message)
  const first = reasonOf()
  for (let i = 1; i < 100; i++) void reasonOf()
  expect(await reasonOf()).toBe('too many are waiting')
  await time.pass(2000)
  expect(await first).toBe('no answer in time')
  void pool.close(0)

  expect(await reasonOf()).toBe('the database is closed')
})

test('a caller’s transactions have a quarter of the connections, with the other statements three quarters', async () => {
  const time = fakeTime()
  const pool = scripted(4)
  const done: string[] = []
  const note = (name: string, work: Promise<unknown>) => void work.then(() => done.push(name))
  await as('ada', async () => {
    note(
      'transaction',
      pool.transaction(query => query('wait 100', [])),
    )
    note(
      'transaction',
      pool.transaction(query => query('wait 100', [])),
    )
    for (const search of ['wait 200 a', 'wait 200 b', 'wait 200 c']) note('search', ask(pool, search))
  })
  await as('bob', async () => {
    note('search of bob', ask(pool, 'wait 20 c'))
    note(
      'transaction of bob',
      pool.transaction(query => query('wait 20', [])),
    )
  })
  await time.pass(50)
  expect(done).toEqual(['search of bob', 'transaction of bob'])
  expect(pool.stats()).toMatchObject({ inUse: 3, waiting: 2 })
  await time.pass(500)

  expect(done.slice(2)).toEqual(['transaction', 'search', 'search', 'transaction', 'search'])
})

test.each([1, 4])('callers take turns: with %d connections', async size => {
  const time = fakeTime()
  const pool = scripted(size)
  const turns: string[] = []
  const note = (caller: string) => ask(pool, 'wait 10').then(() => turns.push(caller))
  for (const caller of ['ada', 'ada', 'ada', 'bob', 'bob', 'eve'])
    void as(caller, async () => void note(caller))
  await time.pass(200)

  expect(turns).toEqual(['ada', 'bob', 'eve', 'ada', 'bob', 'ada'])
})

test('a queue hands out the work of its callers in turn, also before any of it has ended', () => {
  const queue = createFairQueue<{ caller: string }>()
  for (const caller of ['ada', 'ada', 'bob', 'bob']) queue.add({ caller })

  const handedOut = Array.from({ length: 5 }, () => queue.next()?.caller)

  expect(handedOut).toEqual(['ada', 'bob', 'ada', 'bob', undefined])
})

test('a queue keeps nothing of callers whose work is done', () => {
  const queue = createFairQueue<{ caller: string }>()
  for (let i = 0; i < 100; i++) {
    const work = { caller: `caller ${i}` }
    queue.add(work)
    queue.delete(work)
    queue.yieldTurn(work.caller)
  }

  expect([...queue]).toEqual([])
})

test('statements of one caller that wait for a lock leave a quarter of the connections to others', async () => {
  const time = fakeTime()
  const pool = scripted(8)
  await as('ada', async () => {
    for (let i = 0; i < 20; i++) void ask(pool, 'wait 400', true)
  })
  await time.pass(20)
  expect(pool.stats()).toMatchObject({ inUse: 6, waiting: 14 })
  let outcome: string | undefined
  await as('bob', async () => {
    void ask(pool, 'select 1', true).then(result => {
      outcome = result
    })
  })
  await time.pass(20)

  expect(outcome).toBe('answered')
})

test('a caller with its share adds prepared statements to its own connections', async () => {
  const time = fakeTime()
  const pool = scripted(3)
  const askOften = (text: string) =>
    as('ada', async () => {
      for (let i = 0; i < 12; i++) void ask(pool, text, true)
    })
  await askOften('quick')
  await time.pass(50)
  await askOften('wait 1')

  expect(pool.stats()).toMatchObject({ inUse: 2, waiting: 4 })
})

test('of what may wait a caller has half, and the next one half of the rest', async () => {
  const time = fakeTime()
  const pool = scripted(2)
  const outcomes: string[] = []
  const askAs = (caller: string, count: number) =>
    as(caller, async () => {
      for (let i = 0; i < count; i++)
        void ask(pool, 'wait 500').then(outcome => outcomes.push(`${caller} ${outcome}`))
    })
  await askAs('ada', 101)
  // Meanwhile one of ada's is sent, and one of bob's will be.
  await askAs('bob', 53)
  await time.pass(0)

  expect(outcomes).toEqual(['ada refused', 'bob refused'])
})

test('how much is looked at for each answer does not grow with the callers that wait', async () => {
  const looksWith = async (callers: number) => {
    const time = fakeTime()
    const pool = scripted(8)
    for (let i = 0; i < callers; i++)
      void as(`user ${i}`, () => pool.transaction(query => query('wait 100', []))).catch(() => {})
    await time.pass(20)
    let looks = 0
    for (const connection of pool.made)
      Object.defineProperty(connection, 'lost', {
        get() {
          looks++
          return false
        },
      })
    await time.pass(300)
    jest.useRealTimers()
    return looks
  }

  expect(await looksWith(200)).toBeLessThan(1.5 * (await looksWith(20)))
})

test('what a caller has asked for first is sent first, also when it needs a connection to itself', async () => {
  const time = fakeTime()
  const pool = scripted(4)
  const order: string[] = []
  const askAs = (text: string, prepare: boolean) =>
    as('ada', () => ask(pool, text, prepare).then(() => order.push(text)))
  for (let i = 0; i < 30; i++) void askAs('wait 2 read', true)
  void askAs('wait 2 search', false)
  for (let i = 0; i < 200; i++) void askAs('wait 2 read', true)
  await time.pass(600)

  expect(order.indexOf('wait 2 search')).toBeLessThan(100)
})

test('statements that are not prepared and begin alike are slow together, others are not', async () => {
  const time = fakeTime()
  const pool = scripted(8)
  const list = (i: number, prepare: boolean) =>
    void as(`user ${i}`, () => ask(pool, `wait 600 ${'list '.repeat(20)}${i}`, prepare))
  list(0, false)
  await time.pass(510)
  for (let i = 1; i < 7; i++) list(i, false)
  await time.pass(20)
  expect(pool.stats()).toMatchObject({ inUse: 4, waiting: 3 })
  for (let i = 7; i < 10; i++) list(i, true)
  await time.pass(20)

  expect(pool.stats()).toMatchObject({ inUse: 7, waiting: 3 })
})

test('transactions have half of the connections at most', async () => {
  const time = fakeTime()
  const pool = scripted(5)
  const transactions = [1, 2, 3].map(() => pool.transaction(query => query('wait 100', [])))
  await time.pass(20)
  expect(pool.stats()).toMatchObject({ inUse: 2, waiting: 1 })
  expect(await ask(pool)).toBe('answered')
  await time.pass(300)
  await Promise.all(transactions)

  expect(pool.stats()).toMatchObject({ inUse: 0, waiting: 0 })
})

test('transactions have half of the connections at most, also when none of them has to wait for a connection', async () => {
  const time = fakeTime()
  const pool = scripted(6)
  for (let i = 0; i < 6; i++) void ask(pool, 'wait 10')
  await time.pass(50)
  expect(pool.stats()).toMatchObject({ inUse: 0, waiting: 0 })

  const transactions = [1, 2, 3, 4].map(() => pool.transaction(query => query('wait 100', [])))

  expect(pool.stats()).toMatchObject({ inUse: 3, waiting: 1 })
  await time.pass(300)
  await Promise.all(transactions)
})

test('a transaction whose statements are answered in time is not slow, however many it has', async () => {
  const time = fakeTime()
  const pool = scripted(4)
  const begin = () =>
    pool.transaction(async query => {
      for (let i = 0; i < 4; i++) await query('wait 200', [])
    })
  const first = [begin(), begin()]
  await time.pass(1000)
  await Promise.all(first)
  const second = [begin(), begin()]
  await time.pass(20)
  expect(pool.stats()).toMatchObject({ inUse: 2, waiting: 0 })
  await time.pass(1000)
  await Promise.all(second)
})

test('transactions that were given up count no more, though their work never ends', async () => {
  const time = fakeTime()
  const pool = scripted(4)
  const endless = [1, 2].map(() => pool.transaction(() => new Promise(() => {})).catch(() => 'refused'))
  await time.pass(2000)
  expect(await Promise.all(endless)).toEqual(['refused', 'refused'])
  const next = pool.transaction(query => query('quick', [])).catch(() => 'refused')
  await time.pass(2000)

  expect(await next).toEqual([[1]])
})

/** Time that passes only on demand, in steps of `stepMs`; promises are settled in between. */
function fakeTime() {
  jest.useFakeTimers()
  const settle = async () => {
    for (let i = 0; i < 30; i++) await Promise.resolve()
  }
  return {
    async pass(milliseconds: number, stepMs = 10) {
      await settle()
      for (let passed = 0; passed < milliseconds; passed += stepMs) {
        jest.advanceTimersByTime(Math.min(stepMs, milliseconds - passed))
        await settle()
      }
    },
  }
}
