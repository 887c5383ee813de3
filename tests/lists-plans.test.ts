import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import type { Driver } from '../src/db/driver.ts'
import { createDb } from '../src/db/drizzle.ts'
import { openDriver } from '../src/db/open-driver.ts'
import type { UserId } from '../src/lib/user-id.ts'
import type { ListQuery } from '../src/modules/tasks/model.ts'
import { createTaskService, type TaskService } from '../src/modules/tasks/service.ts'
import { privateDatabase } from './support/template.ts'

/** Users by name: one with 50 tasks, one with 10,000, one with 10,000 of which few are open. */
const users = { few: uuid(1) as UserId, many: uuid(2) as UserId, odd: uuid(3) as UserId }
/** A list of `many` with 50 of the tasks. */
const listId = uuid(4)

function uuid(n: number) {
  return `00000000-0000-7000-8000-${String(n).padStart(12, '0')}`
}

interface Plan {
  'Node Type': string
  'Parent Relationship'?: string
  'Index Name'?: string
  'Relation Name'?: string
  'Actual Rows': number
  'Actual Loops': number
  'Rows Removed by Filter'?: number
  'Sort Key'?: string[]
  Plans?: Plan[]
}

/** What was carried out of a plan. */
interface Explained {
  types: string[]
  indexes: string[]
  /** Rows that were read from the table or an index, those in vain included. */
  read: number
  sortKeys: string[]
}

/** A service on a database that holds what `fill` makes; `explain` says how PostgreSQL answers its last statement. */
async function serviceOn(fill: string) {
  const database = await privateDatabase()
  // One connection, so that what it has prepared can be looked into.
  const driver = await openDriver({ kind: 'postgres', url: database.directUrl, poolSize: 1, prepare: true })
  await driver.dedicatedConnection(async connection => {
    await connection.execute(fill)
    // What is not in the log yet (the test server does not wait for it) is not yet visible to all for `vacuum`.
    await connection.execute('checkpoint')
    await connection.execute('vacuum analyze tasks')
  })
  let sent: Parameters<Driver['query']> | undefined
  const spied: Driver = {
    ...driver,
    query: (...statement) => {
      sent = statement
      return driver.query(...statement)
    },
  }
  const parts = { db: createDb(spied), driver: spied, secretKey: 'only for cursors' }
  const tasks: TaskService = createTaskService(parts as never)

  const prepared = async () => {
    const [row] = await driver.query(
      'select name, generic_plans, custom_plans from pg_prepared_statements where statement = $1',
      [sent![0]],
    )
    return row as [name: string, genericPlans: number, customPlans: number] | undefined
  }

  async function explain(): Promise<Explained> {
    const [text, values] = sent!
    const name = (await prepared())?.[0]
    const literals = values.map(value =>
      value === null ? 'null' : `'${String(value).replaceAll("'", "''")}'`,
    )
    const [[answer] = []] = name
      ? await driver.query(`explain (analyze, format json) execute "${name}"(${literals})`, [])
      : await driver.query(`explain (analyze, format json) ${text}`, values)
    const nodes = flatten((answer as [{ Plan: Plan }])[0].Plan).filter(
      node => node['Actual Loops'] > 0 && !isLastVersion(node),
    )
    const scans = nodes.filter(node => node['Index Name'] ?? node['Relation Name'])
    return {
      types: nodes.map(node => node['Node Type']),
      indexes: scans.flatMap(node => node['Index Name'] ?? []),
      read: scans
        .map(node => (node['Actual Rows'] + (node['Rows Removed by Filter'] ?? 0)) * node['Actual Loops'])
        .reduce((a, b) => a + b, 0),
      sortKeys: nodes.flatMap(node => node['Sort Key'] ?? []),
    }
  }

  return {
    tasks,
    prepared,
    explain,
    async close() {
      await driver.close()
      await database.drop()
    },
  }
}

/** The one row of the user's last version, beside the page. */
const isLastVersion = (node: Plan) =>
  node['Parent Relationship'] === 'InitPlan' &&
  node['Index Name'] === 'user_versions_pkey' &&
  node['Actual Rows'] === 1 &&
  node['Actual Loops'] === 1

const flatten = (plan: Plan): Plan[] => [plan, ...(plan.Plans ?? []).flatMap(flatten)]

/** 100,000 tasks: most users have about 100. Rows of one user are spread over the table, as they would be. */
const spread = `
  create temporary table owners as
    select row_number() over () as n, ('00000000-0000-7000-8000-' || lpad((k + 10)::text, 12, '0'))::uuid as id
    from generate_series(1, 799) k;
  insert into users (id, email, normalized_email, password_hash)
    select id, id || '@example.com', id || '@example.com', '' from
    (select id from owners union all select unnest(array['${Object.values(users).join("','")}']::uuid[])) p;
  insert into user_versions (user_id) select id from users;
  insert into lists (id, user_id, name, version) values ('${listId}', '${users.many}', 'list', 200000);
  insert into tasks (id, user_id, title, title_words, description_words, status, priority, due_at, tags, created_at,
    updated_at, completed_at, version, deleted_at, list_id)
  select gen_random_uuid(), who, 'task ' || i, ' task ' || i, repeat(' lorem ipsum', 5),
    case when odd and i % 500 > 0 then 'completed' else (array['pending','in_progress','completed'])[1 + i % 3] end,
    case when odd then (i % 500 = 7)::int * 4 else i % 5 end,
    case when i % 4 > 0 then now() + (i % 3000 - 1500) * interval '1 hour' end,
    case when i % 4 = 0 then '{common}'::text[] when i % 601 = 1 then '{rare}' else '{}' end,
    at, at + interval '1 hour',
    case when (odd and i % 500 > 0) or i % 3 = 2 then at end, i, case when i % 20 = 19 then at end,
    case when who = '${users.many}' and i % 200 = 50 then '${listId}'::uuid end
  from (
    select i, who, odd, now() - i * interval '7 minutes' as at from (
      select i, case when i < 50 then '${users.few}'::uuid when i < 10050 then '${users.many}'
                     when i < 20050 then '${users.odd}' else o.id end as who, i between 10050 and 20049 as odd
      from generate_series(0, 99999) i
      left join owners o on i >= 20050 and o.n = 1 + i % (select count(*) from owners)) whose
    order by random()) spread;
  update user_versions c set last_version = (select max(version) from tasks t where t.user_id = c.user_id)`

describe('a page of a list, with 100,000 tasks in the table', () => {
  let service: Awaited<ReturnType<typeof serviceOn>>
  beforeAll(async () => {
    service = await serviceOn(spread)
  }, 60_000)
  afterAll(() => service.close())

  async function page(who: keyof typeof users, query: ListQuery) {
    const { next } = await service.tasks.list(users[who], query)
    return { next, ...(await service.explain()) }
  }

  /** The cursor behind this many tasks. */
  async function cursorAfter(count: number, query: ListQuery = {}) {
    const { next } = await service.tasks.list(users.many, { ...query, offset: count - 1, limit: 1 })
    return next!
  }

  const inOrder = ['Aggregate', 'Limit', 'Index Scan']
  const withoutValues = (types: string[]) => types.filter(type => type !== 'Result')

  test('costs the same in the default order, for 50 tasks and 10,000, first and last, by one plan', async () => {
    const cursors = [await cursorAfter(99 * 50), await cursorAfter(189 * 50)]
    for (let round = 0; round < 3; round++) {
      for (const cursor of [undefined, ...cursors]) {
        for (const limit of [50, 20, 200, 1]) {
          const plan = await page('many', { limit, ...(cursor && { cursor }) })

          expect(withoutValues(plan.types)).toEqual(inOrder)
          expect(plan.indexes).toEqual(['tasks_created'])
          expect(plan.read).toBeLessThanOrEqual(limit + 1)
        }
      }
      expect((await page('few', {})).read).toBeLessThanOrEqual(51)
    }
    // PostgreSQL plans the first five executions with their values. From then on it keeps one plan.
    const [, genericPlans, customPlans] = (await service.prepared())!
    expect([genericPlans > 5, customPlans]).toEqual([true, 5])
  })

  test('of one status is walked in the order of the list, by one plan', async () => {
    const cursor = await cursorAfter(500, { status: ['pending'] })
    for (const query of [{}, { cursor }]) {
      for (let round = 0; round < 12; round++) {
        const plan = await page('many', { status: ['pending'], limit: 20, ...query })

        expect(withoutValues(plan.types)).toEqual(inOrder)
        // Every third task is pending.
        expect(plan.read).toBeLessThanOrEqual(3 * 21)
      }
      const [, genericPlans, customPlans] = (await service.prepared())!
      expect([genericPlans > 5, customPlans]).toEqual([true, 5])
    }
  })

  test('of a list reads that list alone, by one plan', async () => {
    const query = { list: [listId] }
    const { next } = await service.tasks.list(users.many, { ...query, limit: 10 })
    for (const cursor of [undefined, next!]) {
      for (let round = 0; round < 12; round++) {
        const plan = await page('many', { ...query, limit: 20, ...(cursor && { cursor }) })

        expect(withoutValues(plan.types)).toEqual(inOrder)
        expect(plan.indexes).toEqual(['tasks_list'])
        // The list has 50 of the 10,000 tasks, a few of them in the trash.
        expect(plan.read).toBeLessThanOrEqual(50)
      }
      const [, genericPlans, customPlans] = (await service.prepared())!
      expect([genericPlans > 5, customPlans]).toEqual([true, 5])
    }
  })

  test.each([
    { list: [listId] },
    { list: [listId], status: ['pending'] },
    { list: ['none'] },
    { list: [listId, 'none'], sort: 'title' },
    { parent: ['none'] },
    { parent: [listId] },
    { status: ['pending'] },
    { status: ['pending', 'in_progress'] },
    { priority: 4 },
    { overdue: true },
    { due_before: '2026-11-24T00:00:00Z' },
    { due_after: '2026-11-24T00:00:00Z' },
    { created_before: '2026-11-01T00:00:00Z' },
    { created_after: '2026-11-22T00:00:00Z' },
    { updated_after: '2026-11-22T00:00:00Z' },
    { tag: ['common'] },
    { tag: ['none'] },
    { q: 'task' },
    { q: 'nowhere' },
    { q: 'task 9999 lorem', tag: ['rare'], status: ['pending'] },
    { q: '77', sort: '-priority' },
    { q: 'nowhere', offset: 100 },
    { sort: 'created_at' },
    { sort: '-updated_at' },
    { sort: 'due_at' },
    { sort: '-priority' },
    { sort: 'status' },
    { sort: 'title' },
    { sort: 'position' },
    { sort: '-priority,due_at' },
    { offset: 9000 },
    { total: true },
  ] as ListQuery[])('%j reads the tasks of one user at most', async query => {
    for (const who of ['many', 'odd'] as const) {
      const plan = await page(who, query)

      expect(plan.types).not.toContain('Seq Scan')
      expect(plan.types.join()).not.toContain('Gather')
      expect(plan.read).toBeLessThanOrEqual(2 * 10_000)
    }
  })

  test('titles are compared byte by byte, whatever the collation of the database', async () => {
    const { sortKeys } = await page('many', { sort: 'title' })

    expect(sortKeys[0]).toEndWith('COLLATE "C"')
  })

  test('a shape that is asked for now and then is planned with its values and not kept', async () => {
    for (let round = 0; round < 7; round++)
      await service.tasks.list(users.many, { sort: 'title', priority: 4 })

    expect(await service.prepared()).toBeUndefined()
  })

  test('changes are read in their order, and counts from the tasks of one user', async () => {
    const { cursor } = await service.tasks.changes(users.many, { limit: 1 })
    await service.tasks.changes(users.many, { since: cursor })
    const changes = await service.explain()
    await service.tasks.stats(users.many)
    const counts = await service.explain()

    expect(changes.indexes).toContain('tasks_feed')
    expect(changes.read).toBeLessThan(300)
    expect(counts.types).not.toContain('Seq Scan')
    expect(counts.read).toBeLessThanOrEqual(2 * 10_000)
  })
})

test.each([1, 3, 10])(
  'hot shapes walk the list, also where nearly all users have %i tasks',
  async each => {
    const service = await serviceOn(`
    insert into users (id, email, normalized_email, password_hash)
      select id, id, id, '' from
      (select '${users.many}'::uuid as id union all select gen_random_uuid() from generate_series(1, ${10_000 / each})) p;
    insert into user_versions (user_id, last_version) select id, 5000 from users;
    insert into tasks (id, user_id, title, version, created_at, status)
      select gen_random_uuid(), id, 'task', i, now() - i * interval '1 minute', (array['pending','in_progress'])[1 + i % 2] from (
        select id, i from users, generate_series(1, ${each}) i where id <> '${users.many}'
        union all select '${users.many}', i from generate_series(1, 5000) i
      ) t order by random()`)
    try {
      for (const query of [{}, { status: ['pending'] }] as ListQuery[]) {
        for (let round = 0; round < 7; round++) {
          await service.tasks.list(users.many, query)
          const { indexes, read } = await service.explain()

          expect([query, indexes]).toEqual([query, ['tasks_created']])
          expect(read).toBeLessThanOrEqual(query.status ? 2 * 51 : 51)
        }
        expect((await service.prepared())![1]).toBeGreaterThan(0)
      }
    } finally {
      await service.close()
    }
  },
  60_000,
)
