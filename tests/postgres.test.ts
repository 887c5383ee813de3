import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import postgres from 'postgres'
import { beginSnapshot } from '../src/cli/transfer/read-cursor.ts'
import { parseDatabaseUrl } from '../src/config/database-url.ts'
import type { Driver } from '../src/db/driver.ts'
import { brokenConstraint, databaseError, isSchemaMissing } from '../src/db/pg-error.ts'
import { isUnavailable } from '../src/db/postgres/connection-errors.ts'
import { openPostgres } from '../src/db/postgres/postgres.ts'
import { openSingleConnection } from '../src/db/postgres/single-connection.ts'
import { startFaultProxy } from './support/fault-proxy.ts'
import { execute, type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { columns, complete, readyForQuery, row, startScriptedServer } from './support/scripted-server.ts'
import { stopwatch } from './support/stopwatch.ts'
import { until } from './support/until.ts'

let server: PostgresServer
let db: Driver
beforeAll(async () => {
  server = await startPostgresServer()
  db = openPostgres({ url: server.url, poolSize: 2 })
  await db.dedicatedConnection(connection =>
    connection.execute(`
      create table parents (id int primary key, name text constraint names_are_unique unique);
      create table children (parent int constraint has_a_parent references parents (id));
    `),
  )
}, 60_000)
afterAll(async () => {
  await db.close()
  await server.close()
})

const openSingle = (url: string) =>
  openSingleConnection({
    address: parseDatabaseUrl(url),
    index: 0,
    encryption: 'plain',
    parameters: {},
    until: performance.now() + 5000,
  })

test('a session has these settings, whatever those of the server are', async () => {
  const settings = {
    TimeZone: 'UTC',
    DateStyle: 'ISO, MDY',
    client_encoding: 'UTF8',
    standard_conforming_strings: 'on',
    statement_timeout: '1800ms',
    lock_timeout: '1s',
    idle_in_transaction_session_timeout: '2s',
    idle_session_timeout: '0',
    jit: 'off',
    max_parallel_workers_per_gather: '0',
    random_page_cost: '1.1',
  }
  const names = Object.keys(settings)
  const rows = await db.query(`select ${names.map(name => `current_setting('${name}')`).join()}`, [])

  expect([...rows]).toEqual([Object.values(settings)])
})

describe('a value comes back as it was sent, when it is', () => {
  for (const [what, type, value] of [
    ['a text', 'text', 'é 🙂 \' " \\ $1'],
    ['a text that looks like JSON', 'text', '{"a": [1]}'],
    ['a text that looks like an array', 'text', '{a,b}'],
    ['an empty text', 'text', ''],
    ['null', 'text', null],
    ['true', 'boolean', true],
    ['false', 'boolean', false],
    ['a large int8', 'int8', 2 ** 53 - 1],
    ['an int', 'int', -7],
    ['a list of texts', 'text[]', ['', 'null', 'a,b', 'a"b', 'c\\d', '{}', ' e ', '🙂']],
    ['an empty list', 'text[]', []],
    ['a JSON object', 'jsonb', { a: [1, null, { b: 'é"\\' }] }],
    ['a JSON list that begins with true', 'jsonb', [true, 'x']],
    ['a JSON text', 'jsonb', 'x'],
    ['a JSON true', 'jsonb', true],
    ['a JSON null in json', 'json', { a: null }],
    ['a moment with microseconds', 'timestamptz', '2026-02-28 23:59:59.123456+00'],
    ['a uuid', 'uuid', '0193e0f0-0000-7000-8000-000000000000'],
  ] as const) {
    for (const prepare of [true, false]) {
      test(`${what}, ${prepare ? 'prepared' : 'not prepared'}`, async () => {
        const driver = openPostgres({ url: server.url, poolSize: 1 })
        const first = await driver.query(`select $1::${type} as value`, [value], { prepare })
        const again = await driver.query(`select $1::${type} as value`, [value], { prepare })
        await driver.close()

        expect(first).toEqual([[value]])
        expect(again).toEqual([[value]])
      })
    }
  }
})

test('a moment is returned in UTC, whatever offset it came with', async () => {
  const rows = await db.query('select $1::timestamptz', ['2026-03-01T01:59:59.5+02:00'])

  expect(rows).toEqual([['2026-02-28 23:59:59.5+00']])
})

test('a list of texts may be sent as its text, as Drizzle does', async () => {
  const rows = await db.query('select $1::text[]::text', ['{a,"b c"}'])

  expect(rows).toEqual([['{a,"b c"}']])
})

test('a statement without values is one statement, and prepared', async () => {
  await expect(db.query('select 1; select 2', [])).rejects.toMatchObject({ code: '42601' })
})

test('a statement without rows returns none', async () => {
  expect(await db.query('select 1 where false', [])).toEqual([])
})

describe('an error keeps its SQLSTATE, and the constraint its name:', () => {
  for (const [what, text, values, error] of [
    ['unique', 'insert into parents values (1, $1), (2, $1)', ['x'], ['23505', 'names_are_unique']],
    ['foreign key', 'insert into children values ($1)', [404], ['23503', 'has_a_parent']],
    ['NUL', 'select $1::text', ['a\0b'], ['22021', undefined]],
    ['syntax', 'selec', [], ['42601', undefined]],
  ] as const) {
    test(what, async () => {
      const [code, constraint_name] = error
      const failure = await db.query(text, values).catch(error => error)

      expect(failure.code).toBe(code)
      expect(failure.constraint_name).toBe(constraint_name)
    })
  }
})

test('a statement that takes too long is ended by the server, and the connection is good for the next', async () => {
  const one = openPostgres({ url: server.url, poolSize: 1 })
  const [[before]] = (await one.query('select pg_backend_pid()', [])) as [[number]]
  const failure = await one.query('select pg_sleep(10)', []).catch(error => error)
  const [[after]] = (await one.query('select pg_backend_pid()', [])) as [[number]]
  await one.close()

  expect(failure).toMatchObject({ code: 'unavailable' })
  expect(failure.cause.code).toBe('57014')
  expect(after).toBe(before)
})

test('a value that cannot be written never causes a wrong answer to its neighbours', async () => {
  const one = openPostgres({ url: server.url, poolSize: 1 })
  const unwritable = { toJSON: () => JSON.parse('no JSON') }
  const statement = 'select $1::int, $2::jsonb'
  for (let i = 0; i < 20; i++) await one.query(statement, [i, i], { prepare: true })
  const results = await Promise.allSettled(
    Array.from({ length: 60 }, (_, i) =>
      one.query(statement, [i, i % 10 === 5 ? unwritable : i], { prepare: true }),
    ),
  )
  const after = await one.query(statement, [7, 7])
  await one.close()

  for (const [i, result] of results.entries()) {
    if (result.status === 'fulfilled') expect(result.value).toEqual([[i, i]])
  }
  expect(results.filter(({ status }) => status === 'fulfilled').length).toBeGreaterThan(10)
  expect(after).toEqual([[7, 7]])
})

test('an undefined value is refused before anything is sent', async () => {
  await expect(db.query('select $1::text', [undefined])).rejects.toThrow('undefined')
})

test('a text that is to be prepared is prepared once, whatever its values, and soon has a generic plan', async () => {
  const one = openPostgres({ url: server.url, poolSize: 1 })
  for (const value of [null, true, false, null, true, false, null, true]) {
    await one.query('select $1::boolean, $2::text from parents', [value, 'x'], { prepare: true })
  }
  const prepared = await one.query(
    `select generic_plans, custom_plans from pg_prepared_statements where statement like 'select $1::boolean%'`,
    [],
  )
  await one.close()

  expect(prepared).toEqual([[3, 5]])
})

test('any other text is planned with its values, and the server keeps no memory of it', async () => {
  const one = openPostgres({ url: server.url, poolSize: 1 })
  await one.query(
    `create temporary table skewed as select (g > 1)::int as v from generate_series(1, 100000) g`,
    [],
  )
  await one.query('create index on skewed (v)', [])
  await one.query('analyze skewed', [])
  const planFor = async (value: number) => {
    const plan = await one.query('explain select * from skewed where v = $1', [value])
    return plan.flat().join('\n')
  }
  const plans = [await planFor(0), await planFor(1)]
  for (let i = 0; i < 20; i++) await one.query('select * from skewed where v = $1', [0])
  const kept = await one.query('select count(*)::int from pg_prepared_statements', [])
  await one.close()

  expect(plans[0]).toContain('Index')
  expect(plans[1]).toContain('Seq Scan')
  expect(kept).toEqual([[0]])
})

test('texts without number do not fill the memory of the server', async () => {
  const one = openPostgres({ url: server.url, poolSize: 1 })
  for (let i = 0; i < 300; i++) await one.query(`select $1::int + ${i}`, [1], { prepare: true })
  const rows = await one.query('select count(*) from pg_prepared_statements', [])
  await one.close()

  expect(rows).toEqual([[256]])
})

describe('ten connections', () => {
  let ten: Driver
  beforeAll(() => {
    ten = openPostgres({ url: server.url, poolSize: 10 })
  })
  afterAll(() => ten.close())

  const who = async (text: string, prepare = true) =>
    (await ten.query(text, [], { prepare }))[0]![0] as number
  const atOnce = (count: number, text: string, prepare?: boolean) =>
    Promise.all(Array.from({ length: count }, () => who(text, prepare)))

  // Shorter than what counts as slow: for a second after that, no text would be sent twice.
  test('are all used for what takes long', async () => {
    const pids = await atOnce(10, 'select pg_backend_pid() from pg_sleep(0.3)', false)

    expect(new Set(pids).size).toBe(10)
  })

  test('are all used when prepared statements turn out to take long', async () => {
    await atOnce(100, 'select pg_backend_pid()')
    const pids = await atOnce(60, 'select pg_backend_pid() from pg_sleep(0.05)')

    expect(new Set(pids.slice(30)).size).toBe(10)
  })

  test('are not needed for what is quick: four answer nearly all', async () => {
    const count = new Map<number, number>()
    for (let round = 0; round < 200; round++) {
      for (const pid of await atOnce(12, 'select pg_backend_pid()')) count.set(pid, (count.get(pid) ?? 0) + 1)
    }

    const [a = 0, b = 0, c = 0, d = 0] = [...count.values()].sort((a, b) => b - a)
    // Not all: now and then something is slow, and the others are there for that.
    expect((a + b + c + d) / 2400).toBeGreaterThan(0.8)
  })

  test('do not let the quick wait for the slow', async () => {
    const slow = atOnce(4, 'select pg_backend_pid() from pg_sleep(0.5)', false)
    const elapsed = stopwatch()
    const quick = await atOnce(6, 'select pg_backend_pid()')

    expect(elapsed()).toBeLessThan(400)
    expect(new Set(quick).intersection(new Set(await slow)).size).toBe(0)
  })
})

describe('a session', () => {
  test('runs scripts and returns the rows of the last statement that has any', async () => {
    const rows = await db.dedicatedConnection(connection =>
      connection.execute('select 1, 2; select array[$$a$$]; select 3'),
    )

    expect(rows).toEqual([[3]])
  })

  test('keeps its connection from one script to the next', async () => {
    const rows = await db.dedicatedConnection(async connection => {
      await connection.execute('create temporary table mine (id int); insert into mine values (1)')
      return connection.execute('select id from mine')
    })

    expect(rows).toEqual([[1]])
  })

  test('has no limits, but keeps no locks when its process is gone', async () => {
    const limits = `select current_setting('statement_timeout'), current_setting('lock_timeout'),
      current_setting('idle_in_transaction_session_timeout')`
    const ofSession = await db.dedicatedConnection(connection => connection.execute(limits))
    const ofExport = await db.dedicatedConnection(connection =>
      connection.execute(`${beginSnapshot}; ${limits}`),
    )

    expect([ofSession, ofExport]).toEqual([[['0', '0', '10s']], [['0', '0', '1h']]])
  })

  test('that fails between begin and commit leaves nothing behind, and its error arrives', async () => {
    const work = db.dedicatedConnection(connection =>
      connection.execute('begin; create table half (id int); select 1/0; commit'),
    )

    await expect(work).rejects.toMatchObject({ code: '22012' })
    await work.catch(() => {})
    expect(await db.query(`select to_regclass('half')`, [])).toEqual([[null]])
  })

  test('that loses its connection fails, and does not go on over another one', async () => {
    const failures: unknown[] = []
    await db.dedicatedConnection(async connection => {
      const [[pid]] = (await connection.execute('begin; select pg_backend_pid()')) as [[number]]
      await db.query('select pg_terminate_backend($1)', [pid])
      for (let i = 0; i < 2; i++) await connection.execute('select 1').catch(error => failures.push(error))
    })

    expect(failures).toMatchObject([{ code: 'unavailable' }, { code: 'unavailable' }])
  })

  test('is over when its work throws', async () => {
    let pid: unknown
    const work = db.dedicatedConnection(async connection => {
      pid = (await connection.execute('select pg_backend_pid()'))[0]![0]
      throw new Error('enough')
    })

    await expect(work).rejects.toThrow('enough')
    expect(await db.query('select 1 from pg_stat_activity where pid = $1', [pid])).toEqual([])
  })

  test('cannot be had from a server that is not there', async () => {
    const unreachable = openPostgres({ url: 'postgres://nobody@127.0.0.1:1/nothing', poolSize: 1 })

    await expect(unreachable.dedicatedConnection(async () => {})).rejects.toMatchObject({
      code: 'unavailable',
    })
  })
})

test('a connection that is ended answers what was sent', async () => {
  const single = await openSingle(server.url)
  const last = single.ask('select pg_sleep(0.1)::text', [], {})
  const ended = single.end()

  expect(single.lost).toBe(true)
  expect(await last).toEqual([['']])
  await ended
})

test('a commit that PostgreSQL answers with a rollback is none', async () => {
  const single = await openSingle(server.url)
  await single.ask('begin', [], {})
  await single.ask('select 1/0', [], {}).catch(() => {})

  await expect(single.ask('commit', [], {})).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' })
  expect(single.lost).toBe(true)
})

test('close answers what is under way and what waits, then refuses', async () => {
  const one = openPostgres({ url: server.url, poolSize: 1 })
  const calls = [1, 2, 3].map(i => one.query('select $1::int, pg_sleep(0.1)::text', [i]))
  await one.close()

  expect(await Promise.all(calls)).toEqual(
    [
      [1, ''],
      [2, ''],
      [3, ''],
    ].map(row => [row]),
  )
  await expect(one.query('select 1', [])).rejects.toMatchObject({ code: 'unavailable' })
})

test('close does not wait longer than its limit', async () => {
  const one = openPostgres({ url: server.url, poolSize: 1 })
  const call = one.query('select pg_sleep(1.5)', []).catch(error => error)
  await Bun.sleep(100)
  const elapsed = stopwatch()
  await one.close(0.2)

  expect(elapsed()).toBeLessThan(1000)
  expect(await call).toMatchObject({ code: 'unavailable' })
})

test('an address that cannot be right is refused at once, without repeating it', () => {
  for (const url of ['nonsense secret', 'postgres://a:secret@b:99999/c', 'postgres://a:secret@b:1,c:x/d']) {
    const open = () => openPostgres({ url, poolSize: 1 })

    expect(open).toThrow('The address of the database')
    expect(open).not.toThrow('secret')
  }
})

test('a commit that waits for a standby that is gone keeps no session of the server', async () => {
  const reload = async (change: string) => {
    await execute(server.url, `alter system ${change}`)
    await execute(server.url, 'select pg_reload_conf()')
  }
  const one = openPostgres({ url: `${server.url}?options=-csynchronous_commit=on`, poolSize: 1 })
  const waiting = async () =>
    (await db.query("select count(*)::int from pg_stat_activity where wait_event = 'SyncRep'", []))[0]![0]
  await one.query('create table replicated (a int)', [])
  await reload("set synchronous_standby_names = 'missing'")
  // The setting is in force when the checkpointer has read it, too: until then a commit waits for no one.
  const write = async (): Promise<unknown> =>
    one.query('insert into replicated values (1)', []).then(write, error => error.code)
  try {
    const outcome = write()
    await until(async () => (await waiting()) === 1)

    expect(await outcome).toBe('unavailable')
    await until(async () => (await waiting()) === 0)
  } finally {
    await reload('reset synchronous_standby_names')
    await one.close()
  }
})

describe('the session is ours, whatever', () => {
  const settings = `select current_setting('TimeZone'), current_setting('DateStyle'), current_setting('client_encoding'),
    current_setting('statement_timeout'), '2026-02-28T01:00:00+02'::timestamptz, 'é', '\\n'`
  const ours = [['UTC', 'ISO, MDY', 'UTF8', '1800ms', '2026-02-27 23:00:00+00', 'é', '\\n']]

  test('the database is set to', async () => {
    await db.query(`alter database postgres set timezone to 'Asia/Tokyo'`, [])
    await db.query(`alter database postgres set datestyle to 'German'`, [])
    // The trigger that makes a task's JSON has backslashes in its texts.
    await db.query('alter database postgres set standard_conforming_strings to off', [])
    const one = openPostgres({ url: server.url, poolSize: 1 })
    const found = await one.query(settings, [])
    await one.close()
    await db.query('alter database postgres reset all', [])

    expect(found).toEqual(ours)
  })

  test('the address says', async () => {
    const url = new URL(server.url)
    const tokyo = { TimeZone: 'Asia/Tokyo', TIMEZONE: 'Asia/Tokyo' }
    const parameters = { ...tokyo, DateStyle: 'German', client_encoding: 'LATIN1' }
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value)
    url.searchParams.set('statement_timeout', '0')
    const one = openPostgres({ url: url.href, poolSize: 1 })
    const found = await one.query(settings, [])
    await one.close()

    expect(found).toEqual(ours)
  })

  test('the address and the environment want of the library', async () => {
    const url = new URL(server.url)
    for (const name of ['idle_timeout', 'max_lifetime']) url.searchParams.set(name, '0.05')
    process.env.PGDEBUG = 'true'
    process.env.PGTARGETSESSIONATTRS = 'any'
    const one = openPostgres({ url: url.href, poolSize: 1 })
    try {
      const pid = () => one.query('select pg_backend_pid()', [])
      const before = await pid()
      await Bun.sleep(200)
      expect(await pid()).toEqual(before)
      const failure = await one.query('select $1::int', ['geheim']).catch(error => error)
      expect(failure).toMatchObject({ code: '22P02' })
      expect(Object.keys(failure)).not.toContain('parameters')
    } finally {
      delete process.env.PGDEBUG
      delete process.env.PGTARGETSESSIONATTRS
      await one.close()
    }
  })

  test('the environment wants of how many statements are on their way', async () => {
    const proxy = await startFaultProxy(server.port)
    process.env.PGMAX_PIPELINE = '1'
    const single = await openSingle(proxy.through(server.url))
    try {
      const ask = () => single.ask('select 1', [], { prepare: true })
      await ask()
      proxy.flow.delayMs = 100
      const elapsed = stopwatch()
      await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map(ask))

      // By twos: 800.
      expect(elapsed()).toBeLessThan(600)
    } finally {
      delete process.env.PGMAX_PIPELINE
      single.destroy()
      await proxy.stop()
    }
  })
})

test('prepared statements that were thrown away are prepared again, and no answer is lost', async () => {
  const one = openPostgres({ url: server.url, poolSize: 1 })
  const ask = (i: number) => one.query('select $1::int, $2::jsonb', [i, { i }], { prepare: true })
  await ask(0)
  for (const forget of ['deallocate all', 'discard all']) {
    await one.query(forget, [])
    const rows = await Promise.all([1, 2, 3, 4, 5].map(ask))
    expect(rows).toEqual([1, 2, 3, 4, 5].map(i => [[i, { i }]]))
  }
  const zone = await one.query(`select current_setting('TimeZone')`, [])
  await one.close()

  expect(zone).toEqual([['UTC']])
})

test('a session that does not see the tables is left, so that a search_path that is corrected counts at once', async () => {
  await db.query('create table seen (id int)', [])
  await db.query('alter database postgres set search_path to nowhere', [])
  const one = openPostgres({ url: server.url, poolSize: 1 })
  const read = () => one.query('select * from seen', [])
  const failure = await read().catch(error => error)
  await db.query('alter database postgres reset search_path', [])
  const again = await read().catch(error => error)
  await one.close()

  expect(failure).toMatchObject({ code: '42P01' })
  expect(again).toEqual([])
})

test('a session stays when it lacks a privilege, which it has as soon as it is granted', async () => {
  await db.query('create table granted (id int)', [])
  await db.query("create role clerk login password 'secret'", [])
  const as = Object.assign(new URL(server.url), { username: 'clerk', password: 'secret' })
  const one = openPostgres({ url: as.href, poolSize: 1 })
  const read = () => one.query('select * from granted', [], { prepare: true }).catch(error => error.code)
  const pid = () => one.query('select pg_backend_pid()', [])
  const before = await pid()
  const outcomes = [await read()]
  await db.query('grant select on granted to clerk', [])
  outcomes.push(await read())
  await db.query('revoke select on granted from clerk', [])
  outcomes.push(await read())
  const after = await pid()
  await one.close()

  expect(outcomes).toEqual(['42501', [], '42501'])
  expect(after).toEqual(before)
})

test('a server that refuses writes from now on is left for one that does, by the next statement', async () => {
  const one = openPostgres({ url: server.url, poolSize: 1 })
  const pid = () => one.query('select pg_backend_pid()', [])
  const before = await pid()
  await one.query('set default_transaction_read_only = on', [])
  const failure = await one.query('create table refused (id int)', []).catch(error => error)
  const after = await pid()
  await one.close()

  expect(failure).toMatchObject({ code: 'unavailable', cause: { code: '25006' } })
  expect(after).not.toEqual(before)
})

test('connections to a server that was found to refuse writes are left, also those that still wait for an answer', async () => {
  let refusesWrites = 'off'
  const state = () =>
    Buffer.concat([columns(25, 23), row(refusesWrites, '4242'), complete('SELECT 1'), readyForQuery])
  using old = await startScriptedServer({
    on(type, { text }) {
      if (type === 'Q') return state()
      return text === 'wait' && 'ES'.includes(type) ? Buffer.alloc(0) : undefined
    },
  })
  using promoted = await startScriptedServer({ rows: () => [['promoted']] })
  const [first, second] = [old, promoted].map(({ url }) => new URL(url).host)
  const url = `postgres://someone:secret@${first},${second}/anything?target_session_attrs=read-write`
  const two = openPostgres({ url, poolSize: 2 })
  const waiting = two.query('wait', []).catch(error => error)
  await until(() => old.received.includes('B wait []'))
  refusesWrites = 'on'
  const next = await two.query('next', []).catch(error => error)
  let answer: unknown
  await until(async () => {
    answer = await two.query('again', []).catch(() => undefined)
    return answer !== undefined
  })
  await two.close(0)

  // Not because of the statement that is not answered.
  expect(next).toMatchObject({ code: 'unavailable', cause: { code: '25006' } })
  expect(await waiting).toMatchObject({ code: 'unavailable' })
  expect(answer).toEqual([['promoted']])
})

test('of two hosts that both take writes only one is used, also when the other answers late', async () => {
  using late = await startScriptedServer({ authenticate: () => Buffer.alloc(0), rows: () => [['late']] })
  using good = await startScriptedServer({ rows: () => [['good']] })
  const [first, second] = [late, good].map(({ url }) => new URL(url).host)
  const two = openPostgres({ url: `postgres://someone:secret@${first},${second}/anything`, poolSize: 2 })
  const one = two.query('select 1', [])
  // This one is still asking the first host when the other has given it up.
  await Bun.sleep(400)
  const other = two.query('select 2', [])
  while (good.connections() === 0) await Bun.sleep(5)
  await one
  expect([late.connections(), late.open()]).toEqual([2, 1])
  late.handshake()
  await until(() => late.open() === 0)
  const answers = [await one, await other, await two.query('select 3', [])]
  await two.close()

  expect(answers).toEqual(Array(3).fill([['good']]))
})

test('a deadlock, a serialization failure and a damaged file are a moment of the database, not a mistake of the statement', () => {
  const moments = ['40P01', '40001', '57014', '55P03', '53300', '08006', '25006', '28P01', '3D000']
  for (const code of [...moments, '58030', '58P01', 'XX000', 'XX001']) {
    expect(isUnavailable(new postgres.PostgresError({ code } as never))).toBe(true)
  }
  for (const code of ['23505', '42601', '22P02', '0A000']) {
    expect(isUnavailable(new postgres.PostgresError({ code } as never))).toBe(false)
  }
})

test('a code of the system is no SQLSTATE', () => {
  const broken = (code: string) => Object.assign(new Error(code), { code })

  expect(databaseError(broken('EPIPE'))).toBeUndefined()
  expect(databaseError(new Error('query', { cause: broken('23505') }))?.code).toBe('23505')
})

test('a broken constraint is known by its name, whatever language the server speaks, and on a shard of Citus', () => {
  const broken = (message: string, constraint_name?: string, code = '23505') =>
    brokenConstraint(Object.assign(new Error(message), { code, constraint_name }))

  expect([
    broken('doppelter Schlüsselwert verletzt Unique-Constraint »users_key«', 'users_key'),
    broken('duplicate key value violates unique constraint "users_key_102008"'),
    broken('duplicate key value violates unique constraint "users_key"'),
    broken('null value violates not-null constraint'),
    broken('constraint "users_key" of relation "users" does not exist', undefined, '42704'),
  ]).toEqual(['users_key', 'users_key', 'users_key', '', undefined])
})

test('a table or a column that is not there yet is a migration that has not run', () => {
  const broken = (code: string) => Object.assign(new Error(code), { code })

  expect(['42P01', '42703', '42601'].map(code => isSchemaMissing(broken(code)))).toEqual([true, true, false])
})

test('a mistake of the program is not an outage', () => {
  expect(isUnavailable(new TypeError('x is not a function'))).toBe(false)
  expect(isUnavailable(Object.assign(new Error('refused'), { code: 'ECONNREFUSED' }))).toBe(true)
})
