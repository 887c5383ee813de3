import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import type { SQL } from 'drizzle-orm'
import { Placeholder } from 'drizzle-orm/sql/sql'
import { openDriver } from '../src/db/client.ts'
import { type Driver, formatTextArray } from '../src/db/driver.ts'
import { changesQuery } from '../src/modules/tasks/changes.ts'
import { pageQuery, shapeOf, textOf } from '../src/modules/tasks/list.ts'
import type { ListQuery } from '../src/modules/tasks/model.ts'
import { statsQuery } from '../src/modules/tasks/stats.ts'
import { privateDatabase } from './support/template.ts'

/** A million by hand, with times: `TABLE_ROWS=1000000 bun test tests/lists-plans.test.ts`. */
const rows = Number(Bun.env.TABLE_ROWS ?? 100_000)

/** People by name: somebody with 50 tasks; with 10,000 like everybody's; with 10,000 of which few are open. */
const people = { few: uuid(1), many: uuid(2), odd: uuid(3) }
function uuid(n: number) {
  return `00000000-0000-7000-8000-${String(n).padStart(12, '0')}`
}

interface Plan {
  'Node Type': string
  'Index Name'?: string
  'Relation Name'?: string
  'Actual Rows': number
  'Actual Loops': number
  'Rows Removed by Filter'?: number
  Plans?: Plan[]
}

/** What was carried out of a plan. */
interface Explained {
  nodes: Plan[]
  indexes: string[]
  milliseconds: number
  /** Rows that were read from the table or an index, those in vain included. */
  read: number
  /** Those of them that were looked up in the table. */
  fetched: number
}

describe(`the plans of lists, with ${rows.toLocaleString('en')} tasks in the table`, () => {
  let driver: Driver
  let drop: () => Promise<void>

  beforeAll(async () => {
    const database = await privateDatabase()
    driver = await openDriver({ kind: 'postgres', url: database.directUrl, poolSize: 2, prepare: true })
    drop = async () => {
      await driver.close()
      await database.drop()
    }
    await driver.session(async session => {
      await session.execute(fill)
      // What is not in the log yet (the test server does not wait for it) is not yet visible to all for `vacuum`.
      await session.execute('checkpoint')
      await session.execute('vacuum analyze tasks')
    })
  }, 600_000)
  afterAll(() => drop())

  /** Everybody else has about 100 tasks. Rows of one person are spread over the table, as they would be. */
  const fill = `
    create temporary table owners as
      select row_number() over () as n, ('00000000-0000-7000-8000-' || lpad((k + 10)::text, 12, '0'))::uuid as id
      from generate_series(1, ${Math.floor((rows - 20_050) / 100)}) k;
    insert into users (id, email, email_key, password_hash)
      select id, id || '@example.com', id || '@example.com', '' from
      (select id from owners union all select unnest(array['${Object.values(people).join("','")}']::uuid[])) p;
    insert into task_counters (user_id) select id from users;
    insert into tasks (id, user_id, title, title_words, description_words, status, priority, due_at, tags, created_at,
      updated_at, completed_at, version, deleted_at)
    select gen_random_uuid(), who, 'task ' || i, ' task ' || i, repeat(' lorem ipsum', 5),
      case when odd and i % 500 > 0 then 'completed' else (array['pending','in_progress','completed'])[1 + i % 3] end,
      case when odd then (i % 500 = 7)::int * 4 else i % 5 end,
      case when i % 4 > 0 then now() + (i % 3000 - 1500) * interval '1 hour' end,
      case when i % 4 = 0 then '{common}'::text[] when i % 601 = 1 then '{rare}' else '{}' end,
      at, at + interval '1 hour',
      case when (odd and i % 500 > 0) or i % 3 = 2 then at end, i, case when i % 20 = 19 then at end
    from (
      select i, who, odd, now() - i * interval '7 minutes' as at from (
        select i, case when i < 50 then '${people.few}'::uuid when i < 10050 then '${people.many}'
                       when i < 20050 then '${people.odd}' else o.id end as who, i between 10050 and 20049 as odd
        from generate_series(0, ${rows - 1}) i
        left join owners o on i >= 20050 and o.n = 1 + i % (select count(*) from owners)) whose
      order by random()) spread;
    update task_counters c set seq = (select max(version) from tasks t where t.user_id = c.user_id);
    analyze task_counters; analyze task_tombstones`

  /** What PostgreSQL does for a statement as the service sends it: prepared, planned without the values. */
  async function explain(query: SQL, values: Record<string, unknown>): Promise<Explained> {
    const { sql, params } = textOf(query)
    const literal = (param: unknown) => {
      const value = param instanceof Placeholder ? values[param.name as string] : param
      const text = Array.isArray(value) ? formatTextArray(value) : String(value)
      return `'${text.replaceAll("'", "''")}'`
    }
    const run = `explain (analyze, buffers, format json) execute asked(${params.map(literal)})`
    return driver.session(async session => {
      await session.execute(
        `set jit = off; set plan_cache_mode = force_generic_plan; prepare asked as ${sql}`,
      )
      const times: number[] = []
      let plan: Plan | undefined
      for (let i = 0; i < 5; i++) {
        const [[answer] = []] = await session.execute(run)
        const [explained] = (typeof answer === 'string' ? JSON.parse(answer) : answer) as [
          { Plan: Plan; 'Execution Time': number },
        ]
        plan = explained.Plan
        times.push(explained['Execution Time'])
      }
      const nodes = flatten(plan!).filter(node => node['Actual Loops'] > 0)
      const scans = nodes.filter(node => node['Index Name'] ?? node['Relation Name'])
      return {
        nodes,
        indexes: scans.flatMap(node => node['Index Name'] ?? []),
        milliseconds: times.toSorted((a, b) => a - b)[2]!,
        read: rowsOf(scans),
        fetched: rowsOf(
          scans.filter(node => node['Relation Name'] && node['Node Type'] !== 'Index Only Scan'),
        ),
      }
    })
  }

  const rowsOf = (scans: Plan[]) =>
    scans
      .map(node => (node['Actual Rows'] + (node['Rows Removed by Filter'] ?? 0)) * node['Actual Loops'])
      .reduce((a, b) => a + b, 0)
  const flatten = (plan: Plan): Plan[] => [plan, ...(plan.Plans ?? []).flatMap(flatten)]
  const types = (plan: Explained) => plan.nodes.map(node => node['Node Type'])

  function page(who: keyof typeof people, query: ListQuery, at: Record<string, unknown> = {}) {
    const { shape, values } = shapeOf(query)
    return explain(pageQuery(shape), {
      user: people[who],
      limit: (query.limit ?? 50) + 1,
      offset: query.offset ?? 0,
      ...values,
      ...at,
    })
  }

  /** Where a page begins that has so many tasks before it. */
  async function cursorAfter(count: number) {
    const [row] = await driver.query(
      'select created_at, id from tasks where user_id = $1 and deleted_at is null order by created_at desc, id desc limit 1 offset $2',
      [people.many, count - 1],
    )
    return { after_0: row![0], after_1: row![1] }
  }

  const report = (name: string, { milliseconds, read, indexes }: Explained) => {
    if (!Bun.env.TABLE_ROWS) return
    console.log(
      `${name.padEnd(44)} ${milliseconds.toFixed(2).padStart(8)} ms ${String(read).padStart(7)} rows  ${indexes}`,
    )
  }

  test('the default order is read from its index and not sorted, first page and last', async () => {
    const few = await page('few', {})
    const first = await page('many', {})
    const hundredth = await page('many', { cursor: 'x' }, await cursorAfter(99 * 50))
    const last = await page('many', { cursor: 'x' }, await cursorAfter(189 * 50))

    report('page 1 of 50 tasks', few)
    report('page 1 of 10,000', first)
    report('page 100', hundredth)
    report('page 190', last)
    for (const plan of [few, first, hundredth, last]) {
      expect(plan.indexes).toEqual(['tasks_created'])
      expect(types(plan)).toEqual(['Limit', 'Index Scan'])
      expect(plan.read).toBeLessThanOrEqual(51)
    }
  })

  test('changes and counts are read from indexes', async () => {
    const changes = await explain(changesQuery, { user: people.many, since: 3000, limit: 51 })
    const counts = await explain(statsQuery, {
      user: people.many,
      from: '2026-11-23T00:00:00Z',
      to: '2026-11-24T00:00:00Z',
    })

    report('changes', changes)
    report('counts', counts)
    expect(changes.indexes).toContain('tasks_feed')
    expect(changes.read).toBeLessThan(200)
    expect(types(counts)).not.toContain('Seq Scan')
  })
})
