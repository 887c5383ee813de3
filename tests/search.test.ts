import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { createDb, openDriver } from '../src/db/client.ts'
import type { Driver } from '../src/db/driver.ts'
import { createTaskService, type TaskService } from '../src/modules/tasks/service.ts'
import { onBothDatabases, type Person, type Service } from './support/harness.ts'
import { type PrivateDatabase, privateDatabase } from './support/template.ts'
import { until } from './support/until.ts'

/** What the service does by itself after a search, however few changes there are. */
function indexer(api: Service) {
  const driver = { kind: api.kind, query: api.sql } as never
  const tasks = createTaskService({ db: createDb(driver), driver, secretKey: 'only for cursors' })
  return async (...people: Person[]) => {
    for (const { id } of people) await tasks.list(id, { q: 'x' })
    await tasks.indexWords(1)
  }
}

/** With a limit of one task a search walks six tasks of the list before it asks the index. */
const find = async (api: Service, { token }: Person, q: string, more = '') => {
  const { status, body, headers } = await api.get(
    `/tasks?limit=1&total=true&q=${encodeURIComponent(q)}${more}`,
    { token },
  )
  expect(status).toBe(200)
  return { title: body[0]?.title, total: Number(headers.get('x-total-count')) }
}

const addMany = (api: Service, { token }: Person, titles: string[]) =>
  api.post('/tasks/batch', {
    token,
    json: { operations: titles.map(title => ({ op: 'create', task: { title } })) },
  })

onBothDatabases('the index of words', api => {
  const numbered = (count: number) => Array.from({ length: count }, (_, i) => `task ${i}`)
  const indexed = async ({ id }: Person) =>
    (await api.sql('select count(*) from task_words where user_id = $1', [id]))[0]![0]

  test('is made by the service itself after a search in a long list, and not in a short one', async () => {
    const [ada, bob] = [await api.user(), await api.user()]
    for (let i = 0; i < 3; i++) await addMany(api, ada, numbered(100))
    await addMany(api, bob, numbered(100))
    expect(await indexed(ada)).toBe(0)

    expect(await find(api, bob, 'task 99')).toEqual({ title: 'task 99', total: 1 })
    expect(await find(api, ada, 'task 99')).toEqual({ title: 'task 99', total: 3 })

    await until(async () => (await indexed(ada)) === 300)
    expect(await indexed(bob)).toBe(0)
    expect(await find(api, ada, 'task 99')).toEqual({ title: 'task 99', total: 3 })
    expect(await api.sql('select through from task_word_lists where user_id = $1', [ada.id])).toEqual([[300]])
  })

  test('holds one person and nobody else', async () => {
    const [ada, bob] = [await api.user(), await api.user()]
    await addMany(api, ada, ['hers', ...numbered(20)])
    await addMany(api, bob, ['his', ...numbered(20)])
    await indexer(api)(ada, bob)

    expect(await find(api, ada, 'hers')).toEqual({ title: 'hers', total: 1 })
    expect(await find(api, bob, 'hers')).toEqual({ title: undefined, total: 0 })
    expect(await find(api, ada, 'task')).toEqual({ title: 'task 19', total: 20 })
  })

  test('is behind, and every search knows what has changed since', async () => {
    const ada = await api.user()
    const { token } = ada
    const made = (await addMany(api, ada, ['one', 'two', 'three', 'four', ...numbered(20)])).body
    const [one, two, three, four] = made.results.map((result: { task: object }) => result.task)
    await indexer(api)(ada)

    await api.patch(`/tasks/${one.id}`, { token, json: { title: 'eins' } })
    await api.patch(`/tasks/${one.id}`, { token, json: { description: 'again one' } })
    await api.patch(`/tasks/${two.id}`, { token, json: { title: 'zwei' } })
    await api.delete(`/tasks/${three.id}`, { token })
    await api.delete(`/tasks/${four.id}?permanent=true`, { token })
    const everywhere = async () => [
      await find(api, ada, 'one'),
      await find(api, ada, 'eins'),
      await find(api, ada, 'two'),
      await find(api, ada, 'three'),
      await find(api, ada, 'four'),
    ]
    const found = [
      { title: 'eins', total: 1 },
      { title: 'eins', total: 1 },
      ...Array(3).fill({ title: undefined, total: 0 }),
    ]

    expect(await everywhere()).toEqual(found)
    await indexer(api)(ada)
    expect(await everywhere()).toEqual(found)
    await api.post(`/tasks/${three.id}/restore`, { token })
    expect(await find(api, ada, 'three')).toEqual({ title: 'three', total: 1 })
    await addMany(api, ada, numbered(20))
    await indexer(api)(ada)
    expect(await find(api, ada, 'three')).toEqual({ title: 'three', total: 1 })
    // What is gone for good is gone from there, too: 24 and 20 tasks, one of them deleted.
    expect(await indexed(ada)).toBe(43)
  })

  test('finds the words that the list has, however long they are and whatever their letters', async () => {
    const ada = await api.user()
    const long = 'x'.repeat(100)
    const titles = [
      `${long} one`,
      `${long}y two`,
      '买牛奶 今天',
      'ОТЧЁТ сдать',
      "it's",
      'feed the 🦆',
      '٣ items',
    ]
    await addMany(api, ada, titles)
    await api.task(ada, { title: 'many', description: Array.from({ length: 400 }, (_, i) => i).join(' ') })
    await api.task(ada, { title: 'letters', description: '木'.repeat(1000) + '林'.repeat(1000) })
    await addMany(api, ada, numbered(20))
    await indexer(api)(ada)

    for (const [q, title, total] of [
      [long, `${long}y two`, 2],
      [`${long}y`, `${long}y two`, 1],
      [`${long}z`, undefined, 0],
      ['牛奶', '买牛奶 今天', 1],
      ['牛今', undefined, 0],
      ['отчет', 'ОТЧЁТ сдать', 1],
      ["it's", "it's", 1],
      ["'", undefined, 0],
      ['🦆', 'feed the 🦆', 1],
      ['٣', '٣ items', 1],
      ['399 many', 'many', 1],
      ['木林', 'letters', 1],
      ['林木', undefined, 0],
      ['a '.repeat(100), undefined, 0],
      ['one two', undefined, 0],
    ] as const) {
      expect([q, await find(api, ada, q)]).toEqual([q, { title, total }])
      expect((await find(api, ada, q, '&sort=title')).total).toBe(total)
    }
  })

  test('may be made by many at once while tasks change, and searches find what is there', async () => {
    const ada = await api.user()
    const { token } = ada
    const indexers = [indexer(api), indexer(api), indexer(api)]
    const { results } = (await addMany(api, ada, numbered(60))).body
    const titles = new Map<string, string>(
      results.map(({ id, task }: { id: string; task: { title: string } }) => [id, task.title]),
    )
    const ids = [...titles.keys()]
    let isDone = false

    const call = async (...[method, path, json]: ['patch' | 'post' | 'delete', string, object?]) => {
      const { status, body } = await api[method](path, { token, ...(json && { json }) })
      expect([200, 201, 204]).toContain(status)
      return body
    }
    const write = async (writer: number) => {
      for (let i = 0; i < 60; i++) {
        const id = ids[(writer * 15 + (i % 15)) % ids.length]!
        const title = `word${writer}x${i}`
        await call('patch', `/tasks/${id}`, { title })
        titles.set(id, title)
      }
    }
    // What is deleted takes its words along, many at a time.
    const clear = async () => {
      for (let i = 0; i < 30; i++) {
        const create = (n: number) => ({ op: 'create', task: { title: `gone ${n}` } })
        const { results } = await call('post', '/tasks/batch', {
          operations: Array.from({ length: 30 }, (_, n) => create(n)),
        })
        const [first, ...others]: string[] = results.map(({ id }: { id: string }) => id)
        await call('delete', `/tasks/${first}?permanent=true`)
        const change = (id: string) => ({ op: 'update', id, task: { title: 'gone soon' } })
        await call('post', '/tasks/batch', { operations: others.toReversed().map(change) })
        await call('post', '/tasks/batch', { operations: others.map(id => ({ op: 'delete', id })) })
        await call('delete', '/tasks/trash')
      }
    }
    const index = async (run: (person: Person) => Promise<void>) => {
      while (!isDone) await run(ada)
    }
    const indexing = indexers.map(index)
    await Promise.all([...[0, 1, 2, 3].map(write), clear()])
    isDone = true
    await Promise.all(indexing)
    await indexers[0]!(ada)

    const [row] = await api.sql(
      'select l.through = c.seq, (select count(*) from task_words w where w.user_id = c.user_id) from task_word_lists l join task_counters c using (user_id) where user_id = $1',
      [ada.id],
    )
    expect(row).toEqual([true, 60])
    for (const title of titles.values()) {
      expect(await find(api, ada, title, '&sort=title')).toEqual({ title, total: 1 })
    }
    expect((await find(api, ada, 'task')).total).toBe(0)
    expect((await find(api, ada, 'gone')).total).toBe(0)
  }, 60_000)
})

describe('a step of the index', () => {
  const id = Bun.randomUUIDv7()
  let database: PrivateDatabase
  let driver: Driver
  let tasks: TaskService
  beforeEach(async () => {
    database = await privateDatabase()
    driver = await openDriver({ kind: 'postgres', url: database.directUrl, poolSize: 3, prepare: true })
    tasks = createTaskService({ db: createDb(driver), driver, secretKey: 'only for cursors' })
    await driver.query('insert into users (id, email, email_key, password_hash) values ($1, $2, $2, $2)', [
      id,
      'ada@example.com',
    ])
    await driver.query('insert into task_counters (user_id) values ($1)', [id])
    for (const title of ['one', 'two', 'three']) await tasks.create(id, { title })
    expect(await search('one')).toBe(1)
  })
  afterEach(async () => {
    await driver.close()
    await database.drop()
  })

  const search = async (q: string) => (await tasks.list(id, { q, sort: 'title' })).items.length
  const through = async () => (await driver.query('select through from task_word_lists', []))[0]?.[0]
  const isWaiting = async () =>
    (await driver.query('select count(*) from pg_locks where not granted', []))[0]![0] === 1

  test('that had to wait for another one does nothing, for it does not know what has changed', async () => {
    await tasks.indexWords(1)
    await tasks.create(id, { title: 'four' })
    expect(await search('four')).toBe(1)

    // As `import` does: a task comes in with a number that was given out long ago.
    await driver.session(async session => {
      await session.execute(`begin; delete from tasks where title = 'two';
        insert into tasks (id, user_id, title, title_words, version) values (gen_random_uuid(), '${id}', 'late', ' late', 2);
        update task_word_lists set through = 1`)
      const step = tasks.indexWords(1)
      await until(isWaiting)
      await session.execute('commit')
      await step
    })

    expect(await search('late')).toBe(1)
    expect(await through()).toBe(1)
    // It has not forgotten that there is something to do.
    await tasks.indexWords(1)
    expect(await through()).toBe(4)
    expect([await search('late'), await search('four'), await search('two')]).toEqual([1, 1, 0])
  })

  test('waits for a change of the same tasks before it touches any, and begins again', async () => {
    await driver.session(async session => {
      await session.execute(`begin; update task_counters set seq = 5;
        update tasks set title = 'zwei', title_words = ' zwei', version = 4 where title = 'two'`)
      const step = tasks.indexWords(1)
      await until(isWaiting)
      await session.execute(
        `update tasks set title = 'eins', title_words = ' eins', version = 5 where title = 'one'; commit`,
      )
      await step
    })

    expect(await through()).toBeUndefined()
    for (let round = 0; round < 2; round++) {
      expect([
        await search('eins'),
        await search('zwei'),
        await search('three'),
        await search('one'),
      ]).toEqual([1, 1, 1, 0])
      await tasks.indexWords(1)
    }
    expect(await through()).toBe(5)
  })

  test('leaves the words of nobody who is gone, nor of what is gone for good', async () => {
    await tasks.indexWords(1)
    const words = async () =>
      (await driver.query('select words from task_words order by 1', [])).map(([words]) => words)
    const { items } = await tasks.list(id, { sort: 'created_at' })
    const [first, second] = items.map((json): string => JSON.parse(json).id)
    expect(await words()).toEqual([' one', ' three', ' two'])
    await tasks.remove(id, first!, true, null)
    expect(await words()).toEqual([' three', ' two'])
    await tasks.remove(id, second!, false, null)
    await tasks.emptyTrash(id)
    expect(await words()).toEqual([' three'])
    await driver.query('delete from users', [])
    expect(await words()).toEqual([])
  })
})

test('what a search has found is looked up by its id, also where most people have one task', async () => {
  const database = await privateDatabase()
  const driver = await openDriver({ kind: 'postgres', url: database.directUrl, poolSize: 2, prepare: true })
  const tasks = createTaskService({ db: createDb(driver), driver, secretKey: 'only for cursors' })
  const id = Bun.randomUUIDv7()
  try {
    await driver.session(async session => {
      await session.execute(`
        insert into users (id, email, email_key, password_hash)
          select id, id, id, '' from (select '${id}'::uuid as id union all select gen_random_uuid() from generate_series(1, 10000)) p;
        insert into task_counters (user_id, seq) select id, 5000 from users;
        insert into tasks (id, user_id, title, title_words, version)
          select gen_random_uuid(), id, 'task', ' task', 1 from users where id <> '${id}'
          union all select gen_random_uuid(), '${id}', 'task ' || i, ' task ' || i, i from generate_series(1, 5000) i;
        checkpoint`)
      await session.execute('vacuum analyze')
    })
    const search = () => tasks.list(id, { q: '17', sort: 'title', limit: 200, total: true })
    // The first look is at an index that PostgreSQL takes for empty.
    expect((await search()).total).toBe(111)
    await tasks.indexWords()
    await driver.query('analyze tasks', [])
    await search()

    const began = performance.now()
    for (let i = 0; i < 5; i++) expect((await search()).items).toHaveLength(111)
    // It took more than a second each by another index.
    expect((performance.now() - began) / 5).toBeLessThan(150)
    const [row] = await driver.query('select reltuples from pg_class where relname = $1', ['task_words'])
    expect(row![0]).toBe(5000)
  } finally {
    await driver.close()
    await database.drop()
  }
}, 60_000)
