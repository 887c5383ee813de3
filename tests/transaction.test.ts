import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { eq, placeholder, sql } from 'drizzle-orm'
import { alias, integer, pgTable, text } from 'drizzle-orm/pg-core'
import type { Driver, Query } from '../src/db/driver.ts'
import { createDb, type Db, prepareSql } from '../src/db/drizzle.ts'
import { openEmbedded } from '../src/db/embedded/embedded.ts'
import { observeDriver } from '../src/db/instrumented-driver.ts'
import { openPostgres } from '../src/db/postgres/postgres.ts'
import { runTransaction } from '../src/db/transaction.ts'
import { type PostgresServer, startPostgresServer } from './support/postgres-server.ts'

const entries = pgTable('entries', { id: integer('id').primaryKey(), note: text('note').notNull() })

let server: PostgresServer
let folder: string
beforeAll(async () => {
  server = await startPostgresServer()
  folder = mkdtempSync(join(tmpdir(), 'todo-api-transaction-'))
}, 60_000)
afterAll(async () => {
  await server.close()
  rmSync(folder, { recursive: true, force: true })
})

const open = {
  postgres: async () => openPostgres({ url: server.url, poolSize: 4 }),
  embedded: () => openEmbedded({ dataDir: join(folder, 'data') }),
}

describe.each(['postgres', 'embedded'] as const)('a transaction (%s)', kind => {
  let driver: Driver
  let db: Db
  beforeAll(async () => {
    driver = await open[kind]()
    db = createDb(driver)
    await driver.query('create table entries (id int primary key, note text not null)', [])
  }, 60_000)
  afterAll(() => driver.close())

  const notes = async () => (await db.select().from(entries).orderBy(entries.id)).map(({ note }) => note)
  const empty = () => db.delete(entries)

  test('keeps all of what its statements did', async () => {
    await empty()
    const found = await db.transaction(async tx => {
      await tx.insert(entries).values({ id: 1, note: 'one' })
      await tx.update(entries).set({ note: 'uno' }).where(eq(entries.id, 1))
      return tx.select().from(entries)
    })

    expect(found).toEqual([{ id: 1, note: 'uno' }])
    expect(await notes()).toEqual(['uno'])
  })

  test('keeps nothing when its work throws, and that error arrives', async () => {
    await empty()
    const work = db.transaction(async tx => {
      await tx.insert(entries).values({ id: 1, note: 'one' })
      throw new Error('enough')
    })

    await expect(work).rejects.toThrow('enough')
    expect(await notes()).toEqual([])
  })

  test('keeps nothing when a statement fails, even if its work goes on, and the SQLSTATE arrives', async () => {
    await empty()
    const work = db.transaction(async tx => {
      await tx.insert(entries).values({ id: 1, note: 'one' })
      await tx
        .insert(entries)
        .values({ id: 1, note: 'again' })
        .catch(() => {})
      await tx
        .insert(entries)
        .values({ id: 2, note: 'two' })
        .catch(() => {})
      return 'done'
    })

    await expect(work).rejects.toMatchObject({ code: '23505' })
    expect(await notes()).toEqual([])
  })

  test('runs one statement at a time, in the order in which they were asked', async () => {
    await empty()
    await db.transaction(async tx => {
      await Promise.all([
        tx.insert(entries).values({ id: 1, note: 'a' }),
        tx.update(entries).set({ note: sql`${entries.note} || 'b'` }),
        tx.update(entries).set({ note: sql`${entries.note} || 'c'` }),
      ])
    })

    expect(await notes()).toEqual(['abc'])
  })

  test('includes statements that its work did not wait for', async () => {
    await empty()
    await db.transaction(async tx => {
      for (const id of [1, 2, 3])
        void tx
          .insert(entries)
          .values({ id, note: `${id}` })
          .execute()
    })

    expect(await notes()).toEqual(['1', '2', '3'])
  })

  test('keeps nothing when one of those fails', async () => {
    await empty()
    const work = db.transaction(async tx => {
      for (const id of [1, 2, 1])
        tx.insert(entries)
          .values({ id, note: `${id}` })
          .execute()
          .catch(() => {})
    })

    await expect(work).rejects.toMatchObject({ code: '23505' })
    expect(await notes()).toEqual([])
  })

  test('keeps nothing of statements that are not answered when its work throws', async () => {
    await empty()
    const late: Promise<unknown>[] = []
    const work = db.transaction(async tx => {
      for (const id of [1, 2, 3]) late.push(tx.insert(entries).values({ id, note: 'late' }).execute())
      throw new Error('no')
    })

    expect(await work.catch(({ message }) => message)).toBe('no')
    await Promise.allSettled(late)
    expect(await notes()).toEqual([])
  })

  test.each(['commit', 'rollback'])('refuses statements after its %s', async end => {
    await empty()
    let late: Query | undefined
    const work = driver.transaction(async query => {
      late = query
      if (end === 'rollback') throw new Error('enough')
    })
    await work.catch(() => {})

    await expect(late!(`insert into entries values (1, 'late')`, [])).rejects.toThrow('is over')
    expect(await notes()).toEqual([])
  })

  test('that takes too long is rolled back and unavailable, and others go on', async () => {
    await empty()
    const { promise: forever, resolve: endTest } = Promise.withResolvers<void>()
    let late: Query | undefined
    const failure = await driver
      .transaction(async query => {
        late = query
        await query(`insert into entries values (1, 'one')`, [])
        await forever
      })
      .catch(error => error)

    expect(failure).toMatchObject({ code: 'unavailable' })
    await expect(late!(`insert into entries values (2, 'two')`, [])).rejects.toBeInstanceOf(Error)
    endTest()
    expect(await notes()).toEqual([])
  })

  test('is not inside another one', async () => {
    const work = db.transaction(tx => tx.transaction(async () => {}))

    await expect(work).rejects.toThrow('Transactions are not supported')
  })

  test('has its own view: what others write meanwhile is theirs', async () => {
    await empty()
    const others = Promise.withResolvers<void>()
    const first = db.transaction(async tx => {
      await tx.insert(entries).values({ id: 1, note: 'first' })
      others.resolve()
      await tx.update(entries).set({ note: 'changed' }).where(eq(entries.id, 1))
      throw new Error('enough')
    })
    await others.promise
    const [failure] = await Promise.all([
      first.catch(error => error),
      db.insert(entries).values({ id: 2, note: 'second' }),
    ])

    expect(failure).toMatchObject({ message: 'enough' })
    expect(await notes()).toEqual(['second'])
  })

  test('twenty at once are each all or nothing', async () => {
    await empty()
    const results = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) =>
        db.transaction(async tx => {
          await tx.insert(entries).values({ id: 2 * i, note: 'half' })
          if (i % 2) throw new Error('enough')
          await tx.insert(entries).values({ id: 2 * i + 1, note: 'whole' })
        }),
      ),
    )

    expect(results.map(({ status }) => status === 'fulfilled')).toEqual(results.map((_, i) => i % 2 === 0))
    expect((await notes()).length).toBe(20)
  })

  test('is observed statement by statement, whose rows keep their names', async () => {
    await empty()
    const seen: unknown[] = []
    const observed = observeDriver(driver, (kind, _text, run) => {
      seen.push(kind)
      return run()
    })
    const one = sql`select 1 as one`
    const inside = await createDb(observed).transaction(async tx => {
      await tx.insert(entries).values({ id: 1, note: 'one' })
      await tx.delete(entries)
      return tx.execute(one)
    })
    const outside = await createDb(observed).execute(one)

    const read = { operation: 'select', table: undefined }
    expect(seen).toEqual([
      { operation: 'insert', table: 'entries' },
      { operation: 'delete', table: 'entries' },
      ...[read, read],
    ])
    expect([[...inside], [...outside]]).toEqual([[{ one: 1 }], [{ one: 1 }]])
  })

  test('a row of a left join without its other half has null in its place', async () => {
    await empty()
    await db.insert(entries).values({ id: 1, note: 'one' })
    const next = alias(entries, 'next')
    const rows = await db
      .select()
      .from(entries)
      .leftJoin(next, eq(next.id, sql`${entries.id} + 1`))

    expect(rows).toEqual([{ entries: { id: 1, note: 'one' }, next: null }])
  })

  test('a prepared query returns named rows with the types of its columns', async () => {
    await empty()
    await db.insert(entries).values({ id: 1, note: 'one' })
    const byId = db
      .select()
      .from(entries)
      .where(eq(entries.id, placeholder('id')))
      .prepare('by_id')

    expect(await byId.execute({ id: 1 })).toEqual([{ id: 1, note: 'one' }])
    expect(await byId.execute({ id: 2 })).toEqual([])
  })

  test('a prepared query is known to the server by its text, another is not', async () => {
    const count = sql<{ count: number }>`
      select count(*)::int as count from pg_prepared_statements where statement like '%' || ${'kept_'}::text || 'here%'`
    await prepareSql(db, sql`select 1 as kept_here`).execute()
    await db.execute(sql`select 2 as kept_here`)

    expect(await db.execute<{ count: number }>(count)).toEqual([{ count: 1 }])
  })

  test('raw SQL returns rows by the names of its columns', async () => {
    const raw = sql`select ${placeholder('a')}::int as first, 'x' as "second one"`
    const named = prepareSql<{ first: number; 'second one': string }>(db, raw)

    expect(await named.execute({ a: 7 })).toEqual([{ first: 7, 'second one': 'x' }])
    expect(await db.execute<{ n: number }>(sql`select ${1}::int as n where false`)).toEqual([])
  })

  test('an error of a query is the one of the driver, without the values', async () => {
    const failure = await db.execute(sql`select ${'geheim'}::int`).catch(error => error)

    expect(failure).toMatchObject({ code: '22P02' })
    expect(failure.name).not.toContain('Drizzle')
  })
})

describe('on PostgreSQL, a transaction', () => {
  let driver: Driver
  beforeAll(async () => {
    driver = openPostgres({ url: server.url, poolSize: 4 })
    await driver.query('create table if not exists books (id int, note text)', [])
  })
  afterAll(() => driver.close())
  const pid = async (query: Query) => (await query('select pg_backend_pid()', []))[0]![0] as number
  const kill = (backend: number) => driver.query('select pg_terminate_backend($1)', [backend])
  const count = async () => (await driver.query('select count(*)::int from books', []))[0]![0]

  test('whose backend is killed between two statements is rolled back and unavailable', async () => {
    let after: unknown[] = []
    const work = driver.transaction(async query => {
      await query(`insert into books values (1, 'half')`, [])
      await kill(await pid(query))
      after = await Promise.all(
        [1, 2, 3].map(() => query(`insert into books values (2, 'late')`, []).catch(error => error)),
      )
      await query(`insert into books values (3, 'later')`, [])
    })

    await expect(work).rejects.toMatchObject({ code: 'unavailable' })
    for (const failure of after) expect(failure).toMatchObject({ code: 'unavailable' })
    expect(await count()).toBe(0)
  })

  test('whose backend is killed before the commit is unavailable', async () => {
    const work = driver.transaction(async query => {
      await query(`insert into books values (1, 'half')`, [])
      await kill(await pid(query))
    })

    await expect(work).rejects.toMatchObject({ code: 'unavailable' })
    expect(await count()).toBe(0)
  })

  test('has its connection to itself, and returns it after commit and rollback', async () => {
    const one = openPostgres({ url: server.url, poolSize: 1 })
    const before = await pid(one.query)
    const inside = await one.transaction(async query => {
      const [mine, other] = [await pid(query), pid(one.query)]
      expect(await Promise.race([other, Bun.sleep(50).then(() => 'waits')])).toBe('waits')
      return mine
    })
    // The second one meets a transaction that has failed.
    const failing = ['select 1/0', 'select 1']
    await one.transaction(query => Promise.all(failing.map(text => query(text, [])))).catch(() => {})
    const after = await pid(one.query)
    const [idle] = await one.query(`select pg_current_xact_id_if_assigned() is null`, [])
    await one.close()

    expect([inside, after]).toEqual([before, before])
    expect(idle).toEqual([true])
  })

  test.each(['a transaction', 'a statement'])(
    'that no caller ends is at an end once %s was refused',
    async kind => {
      const one = openPostgres({ url: server.url, poolSize: 1 })
      const use = () =>
        kind === 'a statement' ? one.query('select 1', []) : one.transaction(query => query('select 1', []))
      try {
        await one.query('begin', [])
        await one.query('select 1/0', []).catch(() => {})

        await expect(use()).rejects.toMatchObject({ code: 'unavailable' })
        expect(await use()).toEqual([[1]])
        expect(await use()).toEqual([[1]])
      } finally {
        await one.close()
      }
    },
  )

  const outdate = {
    'the type of a column changes': ['alter table plans alter column note type varchar(50)'],
    'prepared statements are thrown away': ['deallocate all', 'discard all'],
  }
  test.each(Object.entries(outdate))(
    'runs once more when %s, and leaves one trace',
    async (_, statements) => {
      const one = openPostgres({ url: server.url, poolSize: 1 })
      let runs = 0
      const write = (id: number) =>
        one.transaction(async query => {
          runs++
          await query('insert into plans values ($1)', [id], { prepare: true })
          await query('select 1', [])
          return query('select note from plans where id = $1', [id], { prepare: true })
        })
      try {
        await driver.query('drop table if exists plans', [])
        await driver.query(`create table plans (id int, note text default 'x')`, [])
        for (const [i, statement] of statements.entries()) {
          await write(10 * i)
          await one.query(statement, [])
          runs = 0

          expect(await write(10 * i + 1)).toEqual([['x']])
          expect(runs).toBe(2)
          const before = await one.query('select pg_backend_pid()', [])
          for (let j = 2; j < 5; j++) expect(await write(10 * i + j)).toEqual([['x']])
          expect(await one.query('select pg_backend_pid()', [])).toEqual(before)
        }
        const ids = await driver.query('select id from plans order by id', [])
        expect(ids.flat()).toEqual(statements.flatMap((_, i) => [0, 1, 2, 3, 4].map(j => 10 * i + j)))
      } finally {
        await one.close()
      }
    },
  )

  test('of many only half have a connection, so that statements go on', async () => {
    const { promise: released, resolve: release } = Promise.withResolvers<void>()
    const pids = new Set<number>()
    const held = Array.from({ length: 8 }, () =>
      driver
        .transaction(async query => {
          pids.add(await pid(query))
          await released
        })
        .catch(() => {}),
    )
    while (pids.size < 2) await Bun.sleep(5)
    const statement = await driver.query('select 1', [])
    const during = pids.size
    release()
    await Promise.all(held)

    expect(statement).toEqual([[1]])
    expect(during).toBe(2)
  })
})

test('a transaction whose begin fails is rolled back: it may have begun', async () => {
  const statements: string[] = []
  const connection = {
    async run(text: string) {
      statements.push(text)
      if (text === 'begin') throw new Error('too late')
      return []
    },
    destroy() {},
  }

  await expect(runTransaction(connection, async () => {})).rejects.toThrow('too late')
  expect(statements).toEqual(['begin', 'rollback'])
})

test('a transaction whose rollback is not answered ends its connection first, and its own error arrives', async () => {
  let isDestroyed = false
  const connection = {
    async run(text: string) {
      if (text !== 'rollback') return []
      await Bun.sleep(1)
      throw new Error('no answer')
    },
    destroy() {
      isDestroyed = true
    },
  }

  const work = runTransaction(connection, () => Promise.reject(new Error('enough')))

  await expect(work).rejects.toThrow('enough')
  expect(isDestroyed).toBe(true)
})
