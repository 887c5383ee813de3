import {
  type AnyColumn,
  and,
  arrayOverlaps,
  asc,
  count,
  desc,
  eq,
  gt,
  inArray,
  isNull,
  lt,
  ne,
  placeholder,
  type SQL,
  sql,
} from 'drizzle-orm'
import { type Db, prepareSql } from '../../db/drizzle.ts'
import { tasks } from '../../db/tables.ts'
import { parseInstant } from '../../lib/instant.ts'
import { type Cursors, wrongCursor, wrongParameter } from './cursor.ts'
import type { ListQuery, SortKey } from './model.ts'
import { searchPatterns, wordsSeparator } from './words.ts'

/**
 * Lists. A user's tasks are read in the order of the list by `tasks_created`, or all of them and sorted; filters are
 * looked at in passing (docs/decisions/0006-lists.md).
 */

/** One page of a list. */
export interface Page {
  /** The JSON of its tasks, with commas between them. */
  items: string
  /** The cursor of the next page; `undefined` on the last one. */
  next: string | undefined
  /** Only when it was asked for. */
  total?: number | undefined
}

/** The row that the database makes of a page. */
export type PageRow = {
  /** The JSON of the tasks, and of the first one of the next page, with commas between them. */
  items: string | null
  /** A JSON array: what the last task of the page is sorted by. */
  last: string
  /** The first task of the next page. */
  next_id: string | null
}

const defaultSort = '-created_at'

/** The date to sort and compare by. Never null, so that a cursor is a plain comparison: no date is after all dates. */
const due = sql`coalesce(${tasks.dueAt}, 'infinity')`

/** What can be sorted by, compared the same way on every database, and the type that a cursor's value has. */
const sortColumns: Record<SortKey | 'id', { by: SQL; type: string }> = {
  created_at: { by: sql`${tasks.createdAt}`, type: 'timestamptz' },
  updated_at: { by: sql`${tasks.updatedAt}`, type: 'timestamptz' },
  due_at: { by: due, type: 'timestamptz' },
  priority: { by: sql`${tasks.priority}`, type: 'smallint' },
  title: { by: sql`${tasks.title} collate "C"`, type: 'text' },
  // Its three values come in one order in every collation.
  status: { by: sql`${tasks.status}`, type: 'text' },
  position: { by: sql`${tasks.position}`, type: 'text' },
  id: { by: sql`${tasks.id}`, type: 'uuid' },
}

/** What rows are ordered by. */
interface OrderKey {
  by: SQL
  isDescending: boolean
}

/** One key of an order that a client can ask for. */
interface Key extends OrderKey {
  name: SortKey | 'id'
  type: string
}

export function createLists(db: Db, cursors: Cursors) {
  const hotPage = prepareHotPages(db)

  /**
   * A page of the user's live tasks. Throws `validation_failed` for a cursor that is not from this list, and for a
   * cursor with an offset.
   */
  return async function list(userId: string, query: ListQuery): Promise<Page> {
    const { offset = 0, cursor } = query
    if (cursor !== undefined && offset > 0) {
      throw wrongParameter('offset', 'not_combinable', 'Use either offset or cursor')
    }
    const order = parseSort(query.sort ?? defaultSort)
    const after = cursor === undefined ? undefined : openCursor(userId, cursor, order)
    const [rows, counted] = await Promise.all([
      hotPage(userId, query, after) ?? db.execute<PageRow>(pageOf(userId, query, order, after)),
      query.total ? db.select({ total: count() }).from(tasks).where(matching(userId, query)) : undefined,
    ])
    const { items, last } = readPage(rows[0]!)
    return {
      items,
      next: last && cursors.sign('list', userId, `${nameOf(order)} ${last}`),
      total: counted?.[0]?.total,
    }
  }

  /** The values of the last task of the page before. */
  function openCursor(userId: string, cursor: string, order: Key[]): unknown[] {
    const content = cursors.verify('list', userId, cursor)
    const name = nameOf(order)
    if (!content?.startsWith(`${name} `)) throw wrongCursor('cursor')
    return JSON.parse(content.slice(name.length + 1))
  }
}

/** A page that is asked for with its values: PostgreSQL plans it for them. */
function pageOf(userId: string, query: ListQuery, order: Key[], after: unknown[] | undefined): SQL {
  const { limit = 50, offset = 0 } = query
  const values = after?.map((value, i) => sql`${value}::${sql.raw(order[i]!.type)}`)
  const where = and(matching(userId, query), values && isAfter(order, values))!
  return page({
    where,
    order,
    size: sql`${limit}::int`,
    rows: sql`${limit + 1}::int`,
    skip: sql`offset ${offset}`,
  })
}

/**
 * The shapes that clients ask for most, prepared once each: the default order, with one status or none, from the start
 * or by a cursor. `undefined` for any other query.
 */
function prepareHotPages(db: Db) {
  const order = parseSort(defaultSort)
  /**
   * A value that the planner does not see. So a plan with the values costs as much as one without, and PostgreSQL goes
   * on with the one without; and it expects to read a tenth of the rows for `limit`, whatever the number is, for which
   * an index in the order of the list is always best.
   */
  const hidden = (name: string, type: string) => sql`(select ${placeholder(name)}::${sql.raw(type)})`

  const prepare = (name: string, hasStatus: boolean, hasCursor: boolean) => {
    const after = hasCursor ? order.map(({ type }, i) => hidden(`after_${i}`, type)) : undefined
    const where = and(
      eq(tasks.userId, hidden('user', 'uuid')),
      isNull(tasks.deletedAt),
      hasStatus ? eq(tasks.status, hidden('status', 'text')) : undefined,
      after && isAfter(order, after),
    )!
    const size = sql`${placeholder('limit')}::int`
    return prepareSql<PageRow>(
      db,
      name,
      page({ where, order, size, rows: sql`${hidden('limit', 'int')} + 1` }),
    )
  }
  const all = [prepare('list', false, false), prepare('list_after', false, true)]
  const byStatus = [prepare('list_status', true, false), prepare('list_status_after', true, true)]

  return (userId: string, query: ListQuery, after: unknown[] | undefined) => {
    const { limit = 50, offset = 0, sort = defaultSort, status, cursor: _, total: __, ...filters } = query
    if (offset > 0 || sort !== defaultSort || Object.keys(filters).length > 0) return undefined
    if (status && status.length !== 1) return undefined
    const [start, next] = status ? byStatus : all
    return (after ? next! : start!).execute({
      user: userId,
      limit,
      status: status?.[0],
      after_0: after?.[0],
      after_1: after?.[1],
    })
  }
}

/** What a page is made of. */
interface PageParts {
  where: SQL
  order: OrderKey[]
  /** How many tasks a page has. */
  size: SQL
  /** How many rows are read: one more, which says whether there is a next page. */
  rows: SQL
  skip?: SQL
  /** What is sent of a task, as JSON. */
  item?: SQL
}

/**
 * The statement of a page, whose answer is one row (`PageRow`): joining the JSON of the tasks is less work for all than
 * taking 50 rows apart. The task too many is cut off by `readPage`: a filter by `row_number()` costs the server a third
 * more. Raw SQL, because the builder has no words for elements of an aggregate.
 */
export function page({ where, order, size, rows, skip = sql``, item = sql`${tasks.json}` }: PageParts): SQL {
  const keys = order.map(({ by }, i) => ({ by, name: sql.identifier(`key_${i}`) }))
  const list = (parts: SQL[]) => sql.join(parts, sql`, `)
  const orderBy = order.map(({ by, isDescending }) => (isDescending ? desc(by) : asc(by)))
  return sql`
    select string_agg(item, ',') as items,
           json_build_array(${list(keys.map(({ name }) => sql`(array_agg(${name}))[${size}]`))})::text as last,
           (array_agg(id))[${size} + 1] as next_id
    from (
      select ${item} as item, ${tasks.id} as id, ${list(keys.map(({ by, name }) => sql`${by} as ${name}`))}
      from ${tasks} where ${where} order by ${list(orderBy)} limit ${rows} ${skip}
    ) page`
}

/** The JSON of the tasks of a page; and if there is a next one, what its cursor says. */
export function readPage({ items, last, next_id }: PageRow): { items: string; last: string | undefined } {
  if (items === null || next_id === null) return { items: items ?? '', last: undefined }
  // Each task begins with its id, and quotes within a text are escaped: this stands nowhere else.
  return { items: items.slice(0, items.lastIndexOf(`,{"id":"${next_id}"`)), last }
}

/** The live tasks of a user that pass every filter of a query. */
function matching(userId: string, query: ListQuery): SQL {
  const { status, priority, tag, q, overdue } = query
  const at = (compare: typeof lt, column: AnyColumn, moment: string | undefined) =>
    moment === undefined ? undefined : compare(column, parseInstant(moment))
  return and(
    eq(tasks.userId, userId),
    isNull(tasks.deletedAt),
    status?.length ? inArray(tasks.status, status) : undefined,
    priority === undefined ? undefined : eq(tasks.priority, priority),
    tag?.length ? arrayOverlaps(tasks.tags, tag) : undefined,
    // An empty search field is no search.
    q?.trim() ? hasWords(searchPatterns(q)) : undefined,
    at(lt, tasks.dueAt, query.due_before),
    at(gt, tasks.dueAt, query.due_after),
    at(lt, tasks.createdAt, query.created_before),
    at(gt, tasks.createdAt, query.created_after),
    at(gt, tasks.updatedAt, query.updated_after),
    overdue ? and(ne(tasks.status, 'completed'), lt(tasks.dueAt, sql`now()`)) : undefined,
  )!
}

/** Each pattern in the title or in the description. */
const hasWords = (patterns: string[]) =>
  sql`(${tasks.titleWords} || ${sql.raw(`'${wordsSeparator}'`)} || ${tasks.descriptionWords}) like all (${sql.param(patterns)}::text[])`

/**
 * What comes after these values. If every key sorts the same way, a row comparison `(a, b) > (x, y)`, which an index
 * serves as a range. Otherwise `a >= x and (a > x or (a = x and b < y) …)`.
 */
export function isAfter(order: OrderKey[], values: SQL[]): SQL {
  const beyond = order.map(({ isDescending }) => sql.raw(isDescending ? '<' : '>'))
  const by = order.map(key => key.by)
  if (order.every(({ isDescending }) => isDescending === order[0]!.isDescending)) {
    return sql`(${sql.join(by, sql`, `)}) ${beyond[0]} (${sql.join(values, sql`, `)})`
  }
  const steps = by.map((key, i) => {
    const equal = by.slice(0, i).map((before, j) => sql`${before} = ${values[j]}`)
    return sql`(${sql.join([...equal, sql`${key} ${beyond[i]} ${values[i]}`], sql` and `)})`
  })
  return sql`${by[0]} ${beyond[0]}= ${values[0]} and (${sql.join(steps, sql` or `)})`
}

/** `-priority,due_at` as its keys, with `id` behind them, which goes the way of the last: so no two tasks are equal. */
function parseSort(text: string): Key[] {
  const keys = text.split(',').map(part => ({
    name: part.replace('-', '') as SortKey | 'id',
    isDescending: part.startsWith('-'),
  }))
  const all = [...keys, { name: 'id' as const, isDescending: keys.at(-1)!.isDescending }]
  // A key that comes again decides nothing more.
  return all
    .filter(({ name }, i) => all.findIndex(other => other.name === name) === i)
    .map(key => ({ ...key, ...sortColumns[key.name] }))
}

const nameOf = (order: Key[]) =>
  order.map(({ name, isDescending }) => (isDescending ? `-${name}` : name)).join()
