import { afterAll, beforeAll, expect, test } from 'bun:test'
import { connect, createServer, type Socket } from 'node:net'
import type { Driver, Rows } from '../src/db/driver.ts'
import { databaseError } from '../src/db/pg-error.ts'
import { openPostgres } from '../src/db/postgres/postgres.ts'
import { AppError } from '../src/lib/errors.ts'
import { listenOnFreePort, withPort } from './support/ports.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'

/** How long each kind of fault goes on; longer by hand. */
const seconds = Number(process.env.CHAOS_SECONDS ?? 3)
const callers = 32

let server: PostgresServer
let admin: Driver
beforeAll(async () => {
  server = await startPostgresServer()
  admin = openPostgres({ url: server.url, poolSize: 1 })
}, 60_000)
afterAll(async () => {
  await admin.close()
  await server.close()
})

/** What happens to the connections of `db`, a fault every few milliseconds. */
const ours = `from pg_stat_activity where application_name = 'chaos' and pid <> pg_backend_pid()`
const faults = {
  'types and collations change': async (i: number) => {
    await admin.query(`alter table notes alter column owner type varchar(${60 + (i % 100)})`, [])
    await admin.query(`alter table notes alter column owner type text collate "${i % 2 ? 'C' : 'POSIX'}"`, [])
  },
  'prepared statements are thrown away': async (i: number, db: Driver) => {
    const forget = ['deallocate all', 'discard plans', 'discard all'][i % 3]!
    await db.query(forget, [])
  },
  'statements are cancelled': () =>
    admin.query(`select pg_cancel_backend(pid) ${ours} and state = 'active'`, []),
  'backends are terminated': () =>
    admin.query(
      `select pg_terminate_backend(pid) from (select pid ${ours} order by random() limit 1) one`,
      [],
    ),
}

for (const [name, fault] of Object.entries(faults)) {
  test(`every answer is whole and the caller's own while ${name}`, async () => {
    const seen = await chaos(openPostgres({ url: addressOf(server.port), poolSize: 4 }), fault)

    expect(seen.faults).toEqual([])
    expect(seen.right).toBeGreaterThan(seen.refused)
    expect(await storedOtherwise()).toEqual([])
  }, 60_000)
}

test("every answer is whole and the caller's own while all of it happens and answers are cut off", async () => {
  const proxy = await startCutter()
  const all = Object.values(faults)
  const seen = await chaos(openPostgres({ url: addressOf(proxy.port), poolSize: 4 }), async (i, db) => {
    if (i % 5 === 4) proxy.cutNext(1 + Math.floor(Math.random() * 900))
    else await all[i % 5]!(i, db)
  })
  proxy.close()

  expect(seen.faults).toEqual([])
  expect(seen.right).toBeGreaterThan(0)
  expect(await storedOtherwise()).toEqual([])
}, 60_000)

function addressOf(port: number) {
  const url = new URL(withPort(server.url, port))
  url.searchParams.set('application_name', 'chaos')
  return url.href
}

/** Each caller asks for one thing after another, and knows what the answer must be. */
async function chaos(db: Driver, fault: (i: number, db: Driver) => Promise<unknown>) {
  await admin.query('drop table if exists notes', [])
  await admin.query('create table notes (id int primary key, owner text not null, content jsonb)', [])
  await admin.query(`insert into notes select i, 'user' || i, '{}' from generate_series(1, 300) i`, [])
  const seen = { right: 0, refused: 0, faults: [] as string[] }
  const until = performance.now() + seconds * 1000
  let asked = 0

  const loops = Array.from({ length: callers }, async (_, caller) => {
    while (performance.now() < until) {
      const mark = `mark${asked++}`
      const { text, values, expected } = questions[asked % questions.length]!(caller, mark)
      const outcome = await db
        .query(text, values, { prepare: asked % 10 > 0 })
        .then(rows => judge(rows, expected), failureOf)
      if (outcome === 'right' || (outcome === '22012' && expected.fails)) seen.right++
      else if (outcome === 'refused') seen.refused++
      else seen.faults.push(`${text} ${JSON.stringify(values)}: ${outcome}`)
      if (outcome === 'refused') await Bun.sleep(2)
    }
  })
  const faults = (async () => {
    for (let i = 0; performance.now() < until; i++) {
      await fault(i, db).catch(() => {})
      await Bun.sleep(20)
    }
  })()
  await Promise.all([...loops, faults])
  await db.close()
  process.stdout.write(`chaos: ${seen.right} right, ${seen.refused} refused, ${seen.faults.length} faults\n`)
  return seen
}

interface Question {
  text: string
  values: unknown[]
  expected: { rows: number; row: (row: unknown[]) => boolean; fails?: boolean }
}

const questions: ((caller: number, mark: string) => Question)[] = [
  (caller, mark) => ({
    text: 'select owner, $2::text from notes where id = $1',
    values: [caller + 1, mark],
    expected: { rows: 1, row: row => row[0] === `user${caller + 1}` && row[1] === mark },
  }),
  (caller, mark) => ({
    text: 'select i, $1::text from generate_series(1, $2::int) i',
    values: [mark, 50 + caller],
    expected: { rows: 50 + caller, row: row => row[1] === mark },
  }),
  (caller, mark) => ({
    text: 'update notes set content = $1 where id = $2 returning content, owner',
    values: [{ mark }, 100 + caller],
    expected: { rows: 1, row: row => (row[0] as { mark: string }).mark === mark },
  }),
  (caller, mark) => ({
    text: 'update notes set content = $1 where id = $2',
    values: [{ mark }, 200 + caller],
    expected: { rows: 0, row: () => false },
  }),
  (caller, mark) => ({
    text: 'select $1::text, 1 / (40 - i) from generate_series(1, $2::int) i',
    values: [mark, 30 + (caller % 20)],
    expected: { rows: 30 + (caller % 20), row: row => row[0] === mark, fails: caller % 20 >= 10 },
  }),
  (_, mark) => ({
    text: 'select $1::text, case when i > 2000 then pg_sleep(0.05)::text end from generate_series(1, 2001) i',
    values: [mark],
    expected: { rows: 2001, row: row => row[0] === mark },
  }),
  (_, mark) => ({
    text: 'select $1::text where false',
    values: [mark],
    expected: { rows: 0, row: () => false },
  }),
  (caller, mark) => ({
    text: 'select $1::text[], $2::int8, $3::bool',
    values: [[mark, 'a"b'], caller, true],
    expected: {
      rows: 1,
      row: ([list, n, yes]) => (list as string[])[0] === mark && n === caller && yes === true,
    },
  }),
]

function judge(rows: Rows, { rows: count, row, fails }: Question['expected']): string {
  if (fails) return 'answered'
  // By index: a list with holes has a length, too.
  const isWhole =
    rows.length === count && Array.from({ length: count }, (_, i) => rows[i]).every(r => r && row(r))
  return isWhole ? 'right' : `WRONG ${JSON.stringify(rows).slice(0, 200)}`
}

function failureOf(error: unknown): string {
  if (error instanceof AppError && error.code === 'unavailable') return 'refused'
  return databaseError(error)?.code ?? String(error)
}

/** Content that is not an object any more, or that was never sent. */
const storedOtherwise = () =>
  admin.query(`select id, content from notes where jsonb_typeof(content) <> 'object'`, [])

/** A proxy that, on demand, ends the next connection that answers after some bytes of it. */
async function startCutter() {
  const sockets = new Set<Socket>()
  let bytesLeft: number | undefined
  const listener = createServer(client => {
    const upstream = connect(server.port, '127.0.0.1')
    let isCut = false
    const end = () => {
      client.destroy()
      upstream.destroy()
    }
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('error', () => {}).on('close', end)
    }
    client.pipe(upstream)
    upstream.on('data', (data: Buffer) => {
      if (isCut) return
      if (bytesLeft === undefined || data.length <= bytesLeft) return client.write(data)
      isCut = true
      client.write(data.subarray(0, bytesLeft), end)
      bytesLeft = undefined
    })
  })
  const port = await listenOnFreePort(listener)
  return {
    port,
    cutNext(bytes: number) {
      bytesLeft = bytes
    },
    close() {
      for (const socket of sockets) socket.destroy()
      listener.close()
    },
  }
}
