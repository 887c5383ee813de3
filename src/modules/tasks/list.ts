import { and, asc, count, desc, eq, isNull, lt, ne, placeholder, type SQL, sql } from 'drizzle-orm'
import { type Db, prepareSql } from '../../db/drizzle.ts'
import type { UserId } from '../../lib/user-id.ts'
import { type Cursors, wrongCursor, wrongParameter } from './cursor.ts'
import { fieldsWith, filters, type SortName } from './fields.ts'
import type { ListQuery } from './model.ts'
import { value } from './rows.ts'
import { columnOf, tasks, typeOf } from './table.ts'
import { searchPatterns, wordsSeparator } from './words.ts'

/**
 * Lists. The default order is read from the index `tasks_created`; for any other order all tasks of the user are read
 * and sorted. Filters are tested on the rows that are read (docs/decisions/0006-lists.md).
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

/** The row in which the database returns a page. */
export type PageRow = {
  /** The JSON of the tasks, and of the first one of the next page, with commas between them. */
  items: string | null
  /** A JSON array: what the last task of the page is sorted by. */
  last: string
  /** The first task of the next page. */
  next_id: string | null
}

const defaultSort = '-created_at'

/** One key of an ORDER BY. */
interface OrderKey {
  by: SQL
  isDescending: boolean
}

/** One key of an order that a client can ask for. */
interface Key extends OrderKey {
  name: SortName | 'id'
  type: string
}

export function createLists(db: Db, cursors: Cursors) {
  const hotPage = prepareHotPages(db)

  /**
   * A page of the user's live tasks. Throws `validation_failed` for a cursor that is not from this list, and for a
   * cursor with an offset.
   */
  return async function list(userId: UserId, query: ListQuery): Promise<Page> {
    const { offset = 0, cursor } = query
    if (cursor !== undefined && offset > 0) {
      throw wrongParameter('offset', 'not_combinable', 'Use either offset or cursor')
    }
    const order = parseSort(query.sort ?? defaultSort)
    const after = cursor === undefined ? undefined : openCursor(userId, cursor, order)
    const [rows, counted] = await Promise.all([
      hotPage(userId, query, after) ?? db.execute<PageRow>(pageFor(userId, query, order, after)),
      query.total ? db.select({ total: count() }).from(tasks).where(whereClause(userId, query)) : undefined,
    ])
    const { items, last } = readPage(rows[0]!)
    return {
      items,
      next: last && cursors.sign('list', userId, `${nameOf(order)} ${last}`),
      total: counted?.[0]?.total,
    }
  }

  /** The values of the last task of the page before. */
  function openCursor(userId: UserId, cursor: string, order: Key[]): unknown[] {
    const content = cursors.verify('list', userId, cursor)
    const name = nameOf(order)
    if (!content?.startsWith(`${name} `)) throw wrongCursor('cursor')
    return JSON.parse(content.slice(name.length + 1))
  }
}

/** A page as a statement with its values, so that PostgreSQL plans it for them. */
function pageFor(userId: UserId, query: ListQuery, order: Key[], after: unknown[] | undefined): SQL {
  const { limit = 50, offset = 0 } = query
  const values = after?.map((value, i) => sql`${value}::${sql.raw(order[i]!.type)}`)
  const where = and(whereClause(userId, query), values && afterCursor(order, values))!
  return page({
    where,
    order,
    pageSize: sql`${limit}::int`,
    limit: sql`${limit + 1}::int`,
    offset: sql`offset ${offset}`,
  })
}

/**
 * The most frequent queries, each prepared once: the default order, with one status or none, from the start or from a
 * cursor. Returns `undefined` for any other query.
 */
function prepareHotPages(db: Db) {
  const order = parseSort(defaultSort)
  /**
   * A value that the planner does not see. A custom plan then costs as much as the generic one, so PostgreSQL keeps the
   * generic one. It estimates that `limit` reads a tenth of the rows, whatever the number, and for that an index in the
   * order of the list is always best.
   */
  const hidden = (name: string, type: string) => sql`(select ${placeholder(name)}::${sql.raw(type)})`

  const prepare = (name: string, hasStatus: boolean, hasCursor: boolean) => {
    const after = hasCursor ? order.map(({ type }, i) => hidden(`after_${i}`, type)) : undefined
    const where = and(
      eq(tasks.userId, value('user', 'uuid')),
      isNull(tasks.deletedAt),
      hasStatus ? eq(tasks.status, hidden('status', 'text')) : undefined,
      after && afterCursor(order, after),
    )!
    const pageSize = sql`${placeholder('limit')}::int`
    return prepareSql<PageRow>(
      db,
      name,
      page({ where, order, pageSize, limit: sql`${hidden('limit', 'int')} + 1` }),
    )
  }
  const all = [prepare('list', false, false), prepare('list_after', false, true)]
  const byStatus = [prepare('list_status', true, false), prepare('list_status_after', true, true)]

  return (userId: UserId, query: ListQuery, after: unknown[] | undefined) => {
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

/** What differs between the statements of pages. */
interface QueryShape {
  where: SQL
  order: OrderKey[]
  /** How many tasks a page has. */
  pageSize: SQL
  /** How many rows are read: one more, which tells whether there is a next page. */
  limit: SQL
  offset?: SQL
  /** A task as JSON. */
  item?: SQL
}

/**
 * The statement of a page, whose answer is one row (`PageRow`): joining the JSON of the tasks is less work for all than
 * taking 50 rows apart. The task too many is cut off by `readPage`: a filter by `row_number()` costs the server a third
 * more. Raw SQL, because the builder has no words for elements of an aggregate.
 */
export function page({
  where,
  order,
  pageSize,
  limit,
  offset = sql``,
  item = sql`${tasks.json}`,
}: QueryShape): SQL {
  const keys = order.map(({ by }, i) => ({ by, name: sql.identifier(`key_${i}`) }))
  const list = (parts: SQL[]) => sql.join(parts, sql`, `)
  const orderBy = order.map(({ by, isDescending }) => (isDescending ? desc(by) : asc(by)))
  return sql`
    select string_agg(item, ',') as items,
           json_build_array(${list(keys.map(({ name }) => sql`(array_agg(${name}))[${pageSize}]`))})::text as last,
           (array_agg(id))[${pageSize} + 1] as next_id
    from (
      select ${item} as item, ${tasks.id} as id, ${list(keys.map(({ by, name }) => sql`${by} as ${name}`))}
      from ${tasks} where ${where} order by ${list(orderBy)} limit ${limit} ${offset}
    ) page`
}

/** The JSON of the tasks of a page; and if there is a next one, what its cursor says. */
export function readPage({ items, last, next_id }: PageRow): { items: string; last: string | undefined } {
  if (items === null || next_id === null) return { items: items ?? '', last: undefined }
  // Each task begins with its id, and quotes within a text are escaped: this stands nowhere else.
  return { items: items.slice(0, items.lastIndexOf(`,{"id":"${next_id}"`)), last }
}

/** The condition for the live tasks of a user that pass every filter of a query. */
function whereClause(userId: UserId, query: ListQuery): SQL {
  const { q, overdue } = query
  return and(
    eq(tasks.userId, userId),
    isNull(tasks.deletedAt),
    ...filters.map(({ name, field, where }) => {
      const wanted = query[name as keyof ListQuery]
      return wanted === undefined ? undefined : where(columnOf(field), wanted as never)
    }),
    // An empty search field is no search.
    q?.trim() ? hasWords(searchPatterns(q)) : undefined,
    overdue ? and(ne(tasks.status, 'completed'), lt(tasks.dueAt, sql`now()`)) : undefined,
  )!
}

/** Every pattern is in the title or in the description. */
const hasWords = (patterns: string[]) =>
  sql`(${tasks.titleWords} || ${sql.raw(`'${wordsSeparator}'`)} || ${tasks.descriptionWords}) like all (${sql.param(patterns)}::text[])`

/**
 * The condition for the rows after these values. If every key sorts the same way, a row comparison `(a, b) > (x, y)`, which an index
 * serves as a range. Otherwise `a >= x and (a > x or (a = x and b < y) …)`.
 */
export function afterCursor(order: OrderKey[], values: SQL[]): SQL {
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

/** The keys of `-priority,due_at`, followed by `id` in the direction of the last one: so no two tasks are equal. */
function parseSort(text: string): Key[] {
  const keys = text.split(',').map(part => keyOf(part.replace('-', '') as SortName, part.startsWith('-')))
  const all = [...keys, keyOf('id', keys.at(-1)!.isDescending)]
  // A repeated key decides nothing.
  return all.filter(({ name }, i) => all.findIndex(other => other.name === name) === i)
}

const sortBy = new Map(fieldsWith('sortBy').map(([name, field]) => [name, field.sortBy]))

function keyOf(name: SortName | 'id', isDescending: boolean): Key {
  const column = columnOf(name)
  return { name, isDescending, by: sortBy.get(name)?.(column) ?? sql`${column}`, type: typeOf(name) }
}

const nameOf = (order: Key[]) =>
  order.map(({ name, isDescending }) => (isDescending ? `-${name}` : name)).join()
