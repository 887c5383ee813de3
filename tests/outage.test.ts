import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { connect, createServer, type Server, type Socket } from 'node:net'
import type { Driver } from '../src/db/driver.ts'
import { openPostgres } from '../src/db/postgres/postgres.ts'
import { AppError } from '../src/lib/errors.ts'
import { startFaultProxy } from './support/fault-proxy.ts'
import { listenOnFreePort, withPort } from './support/ports.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'
import { stopwatch } from './support/stopwatch.ts'
import { until } from './support/until.ts'

/** What this file promises, in milliseconds: no caller waits longer, and the service recovers soon after. */
const answerMax = 2500
const recoveryMax = 2000

let server: PostgresServer
beforeAll(async () => {
  server = await startPostgresServer()
}, 60_000)
afterAll(() => server.close())

describe('under load, when the server', () => {
  test('is stopped, every query is settled in time and it answers again soon after the start', async () => {
    await outage({ begin: () => server.stop('fast'), end: () => server.start() })
  }, 20_000)

  test('is killed with all its backends, every query is settled in time and it answers again soon', async () => {
    await outage({ begin: () => server.kill(), end: () => server.start() })
  }, 20_000)

  test('is frozen, every query is settled in time and it answers again soon after the thaw', async () => {
    await outage({ begin: () => server.freeze(), end: () => server.thaw(), milliseconds: 4500 })
  }, 20_000)

  test('loses its backends one after another, only what ran on them is lost', async () => {
    const load = startLoad(openPostgres({ url: server.url, poolSize: 4 }))
    const killer = openPostgres({ url: server.url, poolSize: 1 })
    const others = `select pid from pg_stat_activity where application_name = 'todo-api' and pid <> pg_backend_pid()`
    for (let i = 0; i < 40; i++) {
      await killer.query(
        `select pg_terminate_backend(pid) from (${others} order by random() limit 1) one`,
        [],
      )
      await Bun.sleep(25)
    }
    await killer.close()
    const { answered, turnedAway, slowest } = await load.end()

    // A few statements may be on their way on one connection.
    expect(turnedAway).toBeLessThanOrEqual(40 * 4)
    expect(answered).toBeGreaterThan(turnedAway * 10)
    expect(slowest).toBeLessThan(answerMax)
  }, 20_000)

  test('loses all its backends at once, it answers again at once', async () => {
    const load = startLoad(openPostgres({ url: server.url, poolSize: 4 }))
    await load.answers(100)
    const killer = openPostgres({ url: server.url, poolSize: 1 })
    const others = `select pid from pg_stat_activity where application_name = 'todo-api' and pid <> pg_backend_pid()`
    await killer.query(`select pg_terminate_backend(pid) from (${others}) them`, [])
    await killer.close()
    const recovery = await load.answers(100)
    const { slowest } = await load.end()

    expect(recovery).toBeLessThan(recoveryMax)
    expect(slowest).toBeLessThan(answerMax)
  }, 20_000)
})

test('a server that is not there is away at once, with the reason as the cause', async () => {
  const db = openPostgres({ url: 'postgres://todo@127.0.0.1:1/nothing', poolSize: 2 })
  const { error, milliseconds } = await settle(db)
  await db.close()

  expect(error).toMatchObject({ code: 'unavailable', cause: { code: 'ECONNREFUSED' } })
  expect(milliseconds).toBeLessThan(500)
})

test('a wrong password and an unknown database are told apart by the cause', async () => {
  const wrong = new URL(server.url)
  wrong.password = 'wrong'
  for (const [url, code] of [
    [wrong.href, '28P01'],
    [server.urlOf('nothing'), '3D000'],
  ] as const) {
    const db = openPostgres({ url, poolSize: 1 })
    const { error } = await settle(db)
    await db.close()
    expect(error).toMatchObject({ code: 'unavailable', cause: { code } })
  }
})

test('a server that takes connections and says nothing is away within the limit', async () => {
  const hole = await listen(() => {})
  const db = openPostgres({ url: hole.url, poolSize: 2 })
  const first = await settle(db)
  const second = await settle(db)
  await db.close()
  hole.close()

  expect(first).toMatchObject({ error: { code: 'unavailable', cause: { code: 'CONNECT_TIMEOUT' } } })
  expect(first.milliseconds).toBeLessThan(answerMax)
  expect(second.milliseconds).toBeLessThan(100)
})

test('a proxy that closes every connection at once is not flooded with new ones', async () => {
  const proxy = await listen(socket => socket.destroy())
  const db = openPostgres({ url: proxy.url, poolSize: 10 })
  const until = performance.now() + 1000
  while (performance.now() < until) {
    const { error } = await settle(db)
    expect(error).toMatchObject({ code: 'unavailable' })
    await Bun.sleep(5)
  }
  await db.close()
  proxy.close()

  expect(proxy.connections()).toBeLessThan(15)
})

test('connections cut at any byte crash nothing, and no row of a lost answer turns up in another one', async () => {
  const cutter = await listen(client => {
    let bytesLeft = Math.random() * 20_000
    const upstream = connect(server.port, '127.0.0.1')
    const pass = (from: Socket, to: Socket) =>
      from.on('data', (data: Buffer) => {
        bytesLeft -= data.length
        if (bytesLeft > 0) to.write(data)
        // The first half of it, and then nothing more.
        else to.write(data.subarray(0, data.length / 2), () => end())
      })
    const end = () => {
      client.destroy()
      upstream.destroy()
    }
    pass(client, upstream)
    pass(upstream, client)
    for (const socket of [client, upstream]) socket.on('error', () => {}).on('close', end)
  })
  const url = withPort(server.url, cutter.port)
  const load = startLoad(openPostgres({ url, poolSize: 4 }))
  await Bun.sleep(2000)
  const { answered, slowest } = await load.end()
  cutter.close()

  expect(cutter.connections()).toBeGreaterThan(20)
  expect(answered).toBeGreaterThan(0)
  expect(slowest).toBeLessThan(answerMax)
}, 20_000)

test.each([true, false])(
  'a proxy holds new connections, drops them all and comes back: it answers again soon (callers meanwhile: %p)',
  async hasCallers => {
    let mode: 'passes' | 'holds' | 'drops' = 'passes'
    const sockets = new Set<Socket>()
    const dropAll = () => {
      for (const socket of sockets) socket.destroy()
      sockets.clear()
    }
    const proxy = await listen(client => {
      sockets.add(client)
      if (mode === 'drops') client.destroy()
      if (mode !== 'passes') return
      const upstream = connect(server.port, '127.0.0.1')
      sockets.add(upstream)
      client.pipe(upstream).pipe(client)
      upstream.on('error', () => {}).on('close', () => client.destroy())
      client.on('close', () => upstream.destroy())
    })
    const url = withPort(server.url, proxy.port)
    const db = openPostgres({ url, poolSize: 4 })
    expect((await settle(db)).error).toBeUndefined()

    // The connection that there is answers all of them, while the new ones that they call for are held.
    mode = 'holds'
    await Promise.all(Array.from({ length: 4 }, () => settle(db, 'select pg_sleep(0.05)')))
    await Bun.sleep(200)
    mode = 'drops'
    dropAll()
    for (let i = 0; i < 10; i++) {
      if (hasCallers) await settle(db)
      await Bun.sleep(50)
    }
    mode = 'passes'
    const elapsed = stopwatch()
    if (!hasCallers) await Bun.sleep(1000)
    while ((await settle(db)).error && elapsed() < 10_000) await Bun.sleep(20)
    const recovery = elapsed()
    await db.close()
    proxy.close()

    expect(recovery).toBeLessThan(recoveryMax)
  },
  20_000,
)

test('of several hosts the one that answers is found, and found again when they change places', async () => {
  const { port, password } = new URL(server.url)
  const dead = '127.0.0.1:1'
  const alive = `127.0.0.1:${port}`
  for (const hosts of [`${dead},${alive}`, `${alive},${dead}`]) {
    const db = openPostgres({ url: `postgres://postgres:${password}@${hosts}/postgres`, poolSize: 2 })
    const elapsed = stopwatch()
    while ((await settle(db)).error) await Bun.sleep(20)
    await db.close()
    expect(elapsed()).toBeLessThan(recoveryMax)
  }
})

test('of several hosts the last good one stays the first to be tried, also after it has refused a connection', async () => {
  const first = await startFaultProxy(server.port)
  const second = await startFaultProxy(server.port)
  const { host } = new URL(second.through(server.url))
  const db = openPostgres({ url: first.through(server.url).replace(/(@[^/]+)/, `$1,${host}`), poolSize: 2 })
  /** The pool wants a second connection for the second one. */
  const two = () => Promise.all([settle(db, 'select pg_sleep(0.2)'), settle(db, 'select 1')])
  await settle(db)
  first.receive('refuse')
  await two()
  first.heal()
  await until(async () => {
    await two()
    return first.connections() === 2
  })

  first.drop()
  await until(() => first.connections() === 0)
  while ((await settle(db)).error) await Bun.sleep(20)
  const connections = [first.connections() > 0, second.connections()]
  await db.close()
  await Promise.all([first.stop(), second.stop()])

  expect(connections).toEqual([true, 0])
})

test('a locked table delays only the statements that need it', async () => {
  const db = openPostgres({ url: server.url, poolSize: 2 })
  await db.dedicatedConnection(connection => connection.execute('create table if not exists locked (id int)'))
  const { promise: released, resolve: release } = Promise.withResolvers<void>()
  const { promise: held, resolve: hold } = Promise.withResolvers<void>()
  const holder = db.dedicatedConnection(async connection => {
    await connection.execute('begin; lock table locked')
    hold()
    await released
  })
  await held

  const blocked = await settle(db, 'select * from locked')
  const other = await settle(db)
  release()
  await holder
  const after = await settle(db, 'select * from locked')
  await db.close()

  expect(blocked).toMatchObject({ error: { code: 'unavailable', cause: { code: '55P03' } } })
  expect(other.error).toBeUndefined()
  expect(after.error).toBeUndefined()
})

test('when every connection is busy, at most 100 for each wait, and no longer than the limit', async () => {
  const db = openPostgres({ url: server.url, poolSize: 2 })
  const calls = Array.from({ length: 300 }, () => settle(db, 'select pg_sleep(1.2)'))
  const results = await Promise.all(calls)
  const well = await settle(db)
  await db.close()

  const atOnce = results.filter(({ error, milliseconds }) => error && milliseconds < 500)
  expect(atOnce).toHaveLength(100)
  expect(results.filter(({ error }) => !error)).toHaveLength(2)
  expect(Math.max(...results.map(({ milliseconds }) => milliseconds))).toBeLessThan(answerMax)
  expect(well.error).toBeUndefined()
})

/** Puts load on a database before, during and after an outage and checks the promises. */
async function outage(phase: {
  begin: () => Promise<void> | void
  end: () => Promise<void> | void
  milliseconds?: number
}) {
  const load = startLoad(openPostgres({ url: server.url, poolSize: 4 }))
  await load.answers(200)

  await phase.begin()
  await Bun.sleep(phase.milliseconds ?? 2500)
  const away = await load.turnedAway(200)

  await phase.end()
  const recovery = await load.answers(200)
  const { slowest } = await load.end()

  expect(away).toBeLessThan(answerMax)
  expect(recovery).toBeLessThan(recoveryMax)
  expect(slowest).toBeLessThan(answerMax)
}

const callers = 50
const question = 'select i, $1::int from generate_series(1, 20) i'

/** This many callers query in a loop; the promises of the driver are checked. */
function startLoad(db: Driver) {
  const seen = { answered: 0, turnedAway: 0, slowest: 0 }
  let asked = 0
  let wrong = 0
  let ending = false

  const loops = Array.from({ length: callers }, async () => {
    while (!ending) {
      const mark = ++asked
      const { rows, error, milliseconds } = await settle(db, question, [mark])
      if (rows && (rows.length !== 20 || rows.some(row => row[1] !== mark))) wrong++
      seen.slowest = Math.max(seen.slowest, milliseconds)
      seen[error ? 'turnedAway' : 'answered']++
      // A refused caller comes again, though not in the same instant.
      if (error) await Bun.sleep(5)
    }
  })

  async function more(what: 'answered' | 'turnedAway', count: number): Promise<number> {
    const elapsed = stopwatch()
    const wanted = seen[what] + count
    while (seen[what] < wanted && elapsed() < 10_000) await Bun.sleep(5)
    return elapsed()
  }

  return {
    /** Waits for this number of answers; returns the milliseconds that it took. */
    answers: (count: number) => more('answered', count),
    turnedAway: (count: number) => more('turnedAway', count),
    async end() {
      ending = true
      await Promise.all(loops)
      await db.close()
      expect(wrong).toBe(0)
      return seen
    },
  }
}

/** Asks once. A failure that is not `unavailable` is a failure of the test. */
async function settle(db: Driver, text = 'select 1', values: unknown[] = []) {
  const elapsed = stopwatch()
  try {
    const rows = await db.query(text, values)
    return { rows, error: undefined, milliseconds: elapsed() }
  } catch (error) {
    if (!(error instanceof AppError && error.code === 'unavailable')) throw error
    return { rows: undefined, error, milliseconds: elapsed() }
  }
}

/** A listener on a free port that is no PostgreSQL. */
async function listen(serveSocket: (socket: Socket) => void) {
  const sockets = new Set<Socket>()
  let count = 0
  const listener: Server = createServer(socket => {
    count++
    sockets.add(socket)
    socket.on('error', () => {})
    serveSocket(socket)
  })
  const port = await listenOnFreePort(listener)
  return {
    port,
    url: `postgres://todo@127.0.0.1:${port}/nothing`,
    connections: () => count,
    close() {
      for (const socket of sockets) socket.destroy()
      listener.close()
    },
  }
}
