import { describe, expect, spyOn, test } from 'bun:test'
import { parseDatabaseUrl } from '../src/config/database-url.ts'
import { createAnswers } from '../src/db/postgres/answers.ts'
import { isUnavailable } from '../src/db/postgres/connection-errors.ts'
import { openPostgres } from '../src/db/postgres/postgres.ts'
import { openSingleConnection } from '../src/db/postgres/single-connection.ts'
import {
  authentication,
  columns,
  complete,
  failed,
  message,
  readyForQuery,
  row,
  type Script,
  startScriptedServer,
} from './support/scripted-server.ts'
import { until } from './support/until.ts'

/** Asks `count` times over one connection, each statement sent behind the others without a pause. */
async function askAll(script: Script, { count = 12, value = String as (i: number) => unknown } = {}) {
  using server = await startScriptedServer(script)
  const single = await connect(server.url)
  const ask = (i: number) => single.ask(`select $1 /* ${i % 3} */`, [value(i)], { prepare: true })
  // Each text is prepared.
  for (let i = 0; i < 6; i++) await ask(i)
  const results = await within1s(Array.from({ length: count }, (_, i) => ask(i)))
  const after = single.lost ? 'lost' : await ask(1)
  single.destroy()
  return { results, after, received: server.received }
}

async function connect(url: string) {
  const address = parseDatabaseUrl(url)
  const until = performance.now() + 1000
  return openSingleConnection({ address, index: 0, encryption: 'plain', parameters: {}, until })
}

/** What the pool does with a connection that says no more. */
function within1s(promises: Promise<unknown>[]) {
  const late = () => Bun.sleep(1000).then(() => Promise.reject(Object.assign(new Error(), { code: 'LATE' })))
  return Promise.allSettled(promises.map(promise => Promise.race([promise, late()])))
}

const answerTo = (i: number) => [[`select $1 /* ${i % 3} */|${i}`]]

/** Every answer is the caller's own, every error says that the database is unavailable; how many of each there were. */
function expectOwnAnswers(results: PromiseSettledResult<unknown>[]) {
  let answered = 0
  for (const [i, result] of results.entries()) {
    if (result.status === 'rejected') expect(isUnavailable(result.reason)).toBe(true)
    else {
      expect(result.value).toEqual(answerTo(i))
      answered++
    }
  }
  return { answered, refused: results.length - answered }
}

/** Says something else once, at the fourth execution after the six that prepare. */
const once4th = (type: string, answer: (usual: string) => Buffer): Script['on'] => {
  let executions = 0
  return (seen, { text, values }) => {
    if (seen === type) executions++
    return seen === type && executions === 10 ? answer(`${text}|${values}`) : undefined
  }
}

const stale = (code: string, routine: string) => failed(code, 'the plan is stale', routine)

describe('a prepared statement that no longer fits, with others sent behind it,', () => {
  for (const [code, routine] of [
    ['0A000', 'RevalidateCachedQuery'],
    ['26000', 'FetchPreparedStatement'],
    ['42804', 'transformAssignedExpr'],
  ] as const) {
    test(`is asked once more, and everyone gets their own answer (${code})`, async () => {
      const { results, after } = await askAll({ on: once4th('B', () => stale(code, routine)) })

      expect(expectOwnAnswers(results)).toEqual({ answered: 12, refused: 0 })
      expect(after).toEqual(answerTo(1))
    })
  }

  test('is sent with the values of the first time, not with their text encoded again', async () => {
    const { received } = await askAll(
      { on: once4th('B', () => stale('0A000', 'RevalidateCachedQuery')), takes: () => [3802] },
      { value: i => ({ i }) },
    )
    const values = received.filter(line => line.startsWith('B')).map(line => line.split('*/ ')[1])

    expect(values.length).toBe(20)
    for (const sent of values) expect(JSON.parse(JSON.parse(sent!)[0])).toEqual({ i: expect.any(Number) })
  })

  test('is unavailable when it does not fit the second time either', async () => {
    const on: Script['on'] = (type, { values }) =>
      type === 'B' && values[0] === '8' ? stale('0A000', 'RevalidateCachedQuery') : undefined
    const { results, after } = await askAll({ on })

    expect(expectOwnAnswers(results)).toEqual({ answered: 11, refused: 1 })
    expect(results[8]!.status).toBe('rejected')
    expect(after).toBe('lost')
  })

  test.each([
    ['42883', 'operator does not exist: text = uuid'],
    ['26000', 'unnamed prepared statement does not exist'],
  ])(
    'is unavailable when the schema makes it wrong (%s), and its connection is used no more',
    async (code, message) => {
      const { results, after } = await askAll({ on: once4th('B', () => failed(code, message)) })

      expect(expectOwnAnswers(results)).toEqual({ answered: 11, refused: 1 })
      expect(after).toBe('lost')
    },
  )
})

test('a statement whose trigger has an outdated plan is unavailable, and its connection is used no more', async () => {
  const words = 'type of parameter 4 (bigint) does not match that when preparing the plan (integer)'
  const outdated = failed('42804', words, 'plpgsql_param_eval_recfield')
  using server = await startScriptedServer({
    on: (type, { text }) => (type === 'E' && text === 'write' ? outdated : undefined),
  })
  const single = await connect(server.url)

  await expect(single.ask('write', [], {})).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' })
  expect(single.lost).toBe(true)
})

test('a statement that fails after some of its rows leaves none of them in the next answer', async () => {
  const cancelled = Buffer.concat([row('1'), row('2'), failed('57014', 'canceling statement')])
  const { results, after } = await askAll({ on: once4th('E', () => cancelled) })

  expect(expectOwnAnswers(results)).toEqual({ answered: 11, refused: 1 })
  expect(after).toEqual(answerTo(1))
})

describe('no answer is wrong, and the connection is used no more, after', () => {
  for (const [what, type, bytes] of [
    ['a row less than the server counted', 'E', () => complete('SELECT 1')],
    ['a row more', 'E', (text: string) => Buffer.concat([row(text), row(text), complete('SELECT 1')])],
    ['an answer without an end', 'E', () => Buffer.alloc(0)],
    ['an end too many', 'S', () => Buffer.concat([readyForQuery, readyForQuery])],
    ['an end too few', 'S', () => Buffer.alloc(0)],
    ['a portal that is suspended', 'E', (text: string) => Buffer.concat([row(text), message('s')])],
    ['a copy out', 'E', () => message('H', Buffer.from([0, 0, 0]))],
    ['a copy in', 'E', () => message('G', Buffer.from([0, 0, 0]))],
    ['an empty query', 'E', () => message('I')],
    ['a message that cannot be read', 'E', () => message('D', Buffer.from([0, 9]))],
  ] as const) {
    test(what, async () => {
      const { results, after } = await askAll({ on: once4th(type, bytes) })

      expect(expectOwnAnswers(results).answered).toBeOneOf([3, 4])
      expect(after).toBe('lost')
    }, 10_000)
  }
})

test.each([
  ['out', 'H'],
  ['in', 'G'],
  ['both', 'W'],
])('a copy (%s) in answer to the first statement of a session ends that session alone', async (_, type) => {
  const copy = Buffer.concat([message(type, Buffer.from([0, 0, 0])), readyForQuery])
  using server = await startScriptedServer({ on: kind => (kind === 'Q' ? copy : undefined) })
  const db = openPostgres({ url: server.url, poolSize: 1 })
  const failure = await db.query('select 1', []).catch(error => error)
  await db.close(0)
  await Bun.sleep(20)

  expect(failure).toMatchObject({ code: 'unavailable' })
})

test.each([
  ['out', 'H'],
  ['in', 'G'],
  ['both', 'W'],
])('a copy (%s) in answer to a script ends its session alone', async (_, type) => {
  const copy = message(type, Buffer.from([0, 0, 0]))
  using server = await startScriptedServer({ on: (_, { text }) => (text === 'copy' ? copy : undefined) })
  const db = openPostgres({ url: server.url, poolSize: 1 })
  const failure = await db.dedicatedConnection(({ execute }) => execute('copy')).catch(error => error)
  await until(() => server.open() === 0)
  await db.close(0)
  await Bun.sleep(20)

  expect(failure).toBeInstanceOf(Error)
})

describe('a value that cannot be sent is never sent in part, and no other statement gets its answer:', () => {
  for (const [what, unwritable] of [
    ['JSON that throws', { toJSON: () => JSON.parse('no JSON') }],
    ['a circle', Object.assign([], { toJSON: undefined })],
    ['nothing in JSON', () => {}],
    ['a symbol', Symbol('x')],
  ] as const) {
    test(what, async () => {
      const circle: unknown[] = []
      circle.push(circle)
      const bad = what === 'a circle' ? circle : unwritable
      const isBad = (i: number) => i === 8
      const { results, after, received } = await askAll(
        { takes: () => [what === 'a symbol' ? 25 : 3802] },
        { value: i => (isBad(i) ? bad : i) },
      )

      expect(results[8]!.status).toBe('rejected')
      for (const [i, result] of results.entries()) {
        if (result.status === 'fulfilled') expect(result.value).toEqual(answerTo(i))
      }
      expect(received.filter(line => line.startsWith('B') && line.includes('[""]'))).toEqual([])
      expect(after).toBe('lost')
    })
  }

  test('more values than the protocol can count', async () => {
    using server = await startScriptedServer()
    const single = await connect(server.url)
    const ask = (i: number) => single.ask('select $1', [String(i)], { prepare: true })
    await ask(0)
    const many = single.ask('select $1', new Array(65_534).fill(''), { prepare: true })
    const others = Promise.all([1, 2, 3].map(ask))

    const most = single.ask('select $2', new Array(65_533).fill(''), {})

    await expect(many).rejects.toThrow('too many values')
    expect(await others).toEqual([1, 2, 3].map(i => [[`select $1|${i}`]]))
    expect(await most).toHaveLength(1)
    single.destroy()
  })
})

test('a connection that the server closes is lost, also while nothing is asked', async () => {
  const server = await startScriptedServer()
  const single = await connect(server.url)
  expect(single.lost).toBe(false)
  server[Symbol.dispose]()

  await until(() => single.lost)
})

test('a connection has no time after which it is closed: the pool decides', async () => {
  using server = await startScriptedServer()
  const timers = spyOn(globalThis, 'setTimeout')
  try {
    const single = await connect(server.url)
    await single.ask('first', [], {})
    const seconds = timers.mock.calls.map(([, milliseconds]) => Number(milliseconds) / 1000)
    single.destroy()

    // The limits of the start.
    expect(seconds.filter(limit => limit > 1)).toEqual([30])
  } finally {
    timers.mockRestore()
  }
})

test('a script whose rows are not all there fails, and its connection is lost', async () => {
  const half = Buffer.concat([columns(25), row('one'), complete('SELECT 2'), readyForQuery])
  using server = await startScriptedServer({ on: (_, { text }) => (text === 'half' ? half : undefined) })
  const single = await connect(server.url)

  await expect(single.execute('half')).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' })
  expect(single.lost).toBe(true)
  await until(() => server.open() === 0)
})

test('a server that does not say whether it accepts writes is not used', async () => {
  const nothing = Buffer.concat([complete('SELECT 0'), readyForQuery])
  using server = await startScriptedServer({ on: type => (type === 'Q' ? nothing : undefined) })

  await expect(connect(server.url)).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' })
  await until(() => server.open() === 0)
})

describe('an assertion about postgres.js that fails ends the connection:', () => {
  type Settle = (queries: Record<string, (argument?: unknown) => void>[]) => void
  const answer = (text: string) => ({ command: 'SELECT', count: 0, columns: [], statement: { string: text } })

  /** Two statements over a client that does what it should not. */
  async function askTwo(misbehave: Settle) {
    const queries: Record<string, (argument?: unknown) => void>[] = []
    let isDestroyed = false
    class FakeQuery {
      statement: { string: string }
      prepared = true
      constructor(string: string) {
        this.statement = { string }
      }
      forEach() {}
      values() {
        queries.push(this as never)
        return this
      }
    }
    const client = { unsafe: (string: string) => new FakeQuery(string) }
    const ask = createAnswers({
      client: client as never,
      destroy: () => {
        isDestroyed = true
      },
      retire() {},
    })
    const asked = [ask('a', [], { prepare: true })]
    asked.push(ask('b', [], { prepare: true }))
    const settled = Promise.allSettled(asked)
    misbehave(queries)
    const statuses = (await settled).map(({ status }) => status)
    const late = ask('c', [], { prepare: true }).catch(() => 'rejected')
    return { statuses, isDestroyed, late: await Promise.race([late, Bun.sleep(1000)]) }
  }

  const bothFail = { statuses: ['rejected', 'rejected'] as const, isDestroyed: true, late: 'rejected' }

  test('an answer out of turn', async () => {
    const misbehave: Settle = ([, second]) => {
      Object.assign(second!, { statement: answer('b').statement })
      second!.resolve!({ ...answer('b'), statement: second!.statement })
    }

    expect(await askTwo(misbehave)).toMatchObject(bothFail)
  })

  test('the answer to another statement', async () => {
    const misbehave: Settle = ([first]) => first!.resolve!(answer('b'))

    expect(await askTwo(misbehave)).toMatchObject(bothFail)
  })

  test('the answer to another text', async () => {
    const misbehave: Settle = ([first]) => {
      const { statement } = Object.assign(first!, { statement: answer('b').statement })
      first!.resolve!({ ...answer('b'), statement })
    }

    expect(await askTwo(misbehave)).toMatchObject(bothFail)
  })
})

describe('a server that does not prove itself is away, without a word on stderr and without delay:', () => {
  const nonce = (answer: string) => /r=([^,]*)/.exec(answer)![1]
  for (const [what, authenticate] of [
    ['a challenge without salt', (text?: string) => challenge(text, nonce => `r=${nonce}x`)],
    ['a challenge that is no challenge', (text?: string) => challenge(text, () => 'nonsense')],
    [
      'a challenge of which 64 KiB are not all',
      (text?: string) => challenge(text, () => 'x'.repeat(100_000)).subarray(0, 66_000),
    ],
    [
      'a challenge that asks for two billion hashes',
      (text?: string) => challenge(text, nonce => `r=${nonce}x,s=c2FsdA==,i=2147483647`),
    ],
    [
      'a challenge that asks for no hash',
      (text?: string) => challenge(text, nonce => `r=${nonce}x,s=c2FsdA==,i=0`),
    ],
    [
      'a challenge that is no challenge, behind a notice',
      (text?: string) => Buffer.concat([message('N', Buffer.from([0])), challenge(text, () => 'nonsense')]),
    ],
    ['a mechanism that is known, but binds a channel', () => authentication(10, 'SCRAM-SHA-256-PLUS\0\0')],
    ['no mechanism that is known', () => authentication(10, 'SCRAM-SHA-1\0\0')],
    [
      'one that accepts without its own proof',
      (text?: string) =>
        text?.startsWith('c=') ? undefined : challenge(text, nonce => `r=${nonce}x,s=c2FsdA==,i=4096`),
    ],
  ] as const) {
    test(what, async () => {
      using server = await startScriptedServer({ authenticate })
      const unheard: unknown[] = []
      const collect = (error: unknown) => unheard.push(error)
      process.on('unhandledRejection', collect)
      const db = openPostgres({ url: server.url, poolSize: 1 })
      const failure = await db.query('select 1', []).catch(error => error)
      await db.close(0)
      process.off('unhandledRejection', collect)

      expect(failure).toMatchObject({ code: 'unavailable' })
      expect(failure.cause.cause.message).toStartWith("the server's authentication:")
      expect(unheard).toEqual([])
    })
  }

  function challenge(answer: string | undefined, first: (nonce: string) => string) {
    if (answer === undefined) return authentication(10, 'SCRAM-SHA-256\0\0')
    return authentication(11, first(nonce(answer)!))
  }
})

test.each([
  ['names our session to the server', '4242', 1],
  ['is not sent through a proxy, which shows by the number of its process', '7', 0],
])('a request to cancel %s', async (_, pid, requests) => {
  const handshake = Buffer.concat([columns(25, 23), row('off', pid), complete('SELECT 1'), readyForQuery])
  using server = await startScriptedServer({ on: type => (type === 'Q' ? handshake : undefined) })
  const single = await connect(server.url)

  await single.cancel()
  await Bun.sleep(50)

  // Process 4242 and its secret, 1.
  const session = Buffer.from([0, 0, 16, 146, 0, 0, 0, 1]).toString()
  expect(server.startups.slice(1)).toEqual(Array(requests).fill(session))
  single.destroy()
})
