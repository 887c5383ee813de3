import { and, eq, isNull, lt, ne, placeholder, type SQL, sql } from 'drizzle-orm'
import { type Db, prepareSql } from '../../db/drizzle.ts'
import {
  afterCursor,
  countRows,
  type OrderKey,
  type Page,
  type PageRow,
  page,
  readPage,
} from '../../db/page.ts'
import { createVersionReader } from '../../db/versions.ts'
import type { UserId } from '../../lib/user-id.ts'
import { type Cursors, wrongCursor, wrongParameter } from './cursor.ts'
import { fieldsWith, filters, type SortName } from './fields.ts'
import type { ListQuery } from './model.ts'
import { value } from './rows.ts'
import { columnOf, tasks, typeOf } from './table.ts'
import { searchPatterns, wordsSeparator } from './words.ts'

/**
 * Pages of tasks. The default order is read from the index `tasks_created`, or `tasks_list` for those of one list; for any
 * other order all tasks of the user are read and sorted. Other filters are tested on the rows that are read
 * (docs/decisions/0006-lists.md).
 */

const defaultSort = '-created_at'

/** One key of an order that a client can ask for. */
interface Key extends OrderKey {
  name: SortName | 'id'
  type: string
}

export function createPages(db: Db, cursors: Cursors) {
  const hotPage = prepareHotPages(db)
  const readVersions = createVersionReader(db)

  /**
   * A page of the user's live tasks. Throws `validation_failed` for a cursor that is not from this list, and for a
   * cursor with an offset.
   */
  async function list(userId: UserId, query: ListQuery): Promise<Page> {
    const { order, after } = readPlace(userId, query)
    const page = await readPage(
      hotPage(userId, query, after) ?? db.execute<PageRow>(pageFor(userId, query, order, after)),
      last => cursors.sign('list', userId, `${nameOf(order)} ${last}`),
      query.total ? countRows(db, tasks, whereClause(userId, query), userId) : undefined,
    )
    return query.overdue ? { ...page, version: undefined } : page
  }

  /** The `version` that such a page has now, without reading it. Throws as `list` does. */
  async function listVersion(userId: UserId, query: ListQuery): Promise<number | undefined> {
    readPlace(userId, query)
    return query.overdue ? undefined : (await readVersions(userId))?.lastVersion
  }

  /** The order of a query, and the values of the last task of the page before. */
  function readPlace(userId: UserId, { sort = defaultSort, offset = 0, cursor }: ListQuery) {
    if (cursor !== undefined && offset > 0) {
      throw wrongParameter('offset', 'not_combinable', 'Use either offset or cursor')
    }
    const order = parseSort(sort)
    return { order, after: cursor === undefined ? undefined : openCursor(userId, cursor, order) }
  }

  /** The values of the last task of the page before. */
  function openCursor(userId: UserId, cursor: string, order: Key[]): unknown[] {
    const content = cursors.verify('list', userId, cursor)
    const name = nameOf(order)
    if (!content?.startsWith(`${name} `)) throw wrongCursor('cursor')
    return JSON.parse(content.slice(name.length + 1))
  }

  return { list, listVersion }
}

/** A page as a statement with its values, so that PostgreSQL plans it for them. */
function pageFor(userId: UserId, query: ListQuery, order: Key[], after: unknown[] | undefined): SQL {
  const { limit = 50, offset = 0 } = query
  const values = after?.map((value, i) => sql`${value}::${sql.raw(order[i]!.type)}`)
  const where = and(whereClause(userId, query), values && afterCursor(order, values))!
  return page({
    from: tasks,
    where,
    order,
    pageSize: sql`${limit}::int`,
    limit: sql`${limit + 1}::int`,
    offset: sql`offset ${offset}`,
    lastVersionOf: sql`${userId}::uuid`,
  })
}

/** Filters of hot pages, each with one value. */
const hotFilters = { list: ['list_id', 'uuid'], status: ['status', 'text'] } as const
type HotFilter = keyof typeof hotFilters

/**
 * The most frequent queries, each prepared once: the default order, of everything, one list or one status, from the start
 * or from a cursor. Returns `undefined` for any other query.
 */
function prepareHotPages(db: Db) {
  const order = parseSort(defaultSort)
  /**
   * A value that the planner does not see. A custom plan then costs as much as the generic one, so PostgreSQL keeps the
   * generic one. It estimates that `limit` reads a tenth of the rows, whatever the number, and for that an index in the
   * order of the list is always best. The user is not hidden: a distributed PostgreSQL finds the shard by it.
   */
  const hidden = (name: string, type: string) => sql`(select ${placeholder(name)}::${sql.raw(type)})`

  const prepare = (filters: HotFilter[], hasCursor: boolean) => {
    const after = hasCursor ? order.map(({ type }, i) => hidden(`after_${i}`, type)) : undefined
    const where = and(
      eq(tasks.userId, value('user', 'uuid')),
      isNull(tasks.deletedAt),
      ...filters.map(name => eq(columnOf(hotFilters[name][0]), hidden(name, hotFilters[name][1]))),
      after && afterCursor(order, after),
    )!
    const pageSize = sql`${placeholder('limit')}::int`
    return prepareSql<PageRow>(
      db,
      ['tasks', ...filters, ...(hasCursor ? ['after'] : [])].join('_'),
      page({
        from: tasks,
        where,
        order,
        pageSize,
        limit: sql`${hidden('limit', 'int')} + 1`,
        lastVersionOf: value('user', 'uuid'),
      }),
    )
  }
  const combinations: HotFilter[][] = [[], ['list'], ['status']]
  const prepared = new Map(
    combinations.map(filters => [filters.join(), [prepare(filters, false), prepare(filters, true)] as const]),
  )

  return (userId: UserId, query: ListQuery, after: unknown[] | undefined) => {
    const { limit = 50, offset = 0, sort = defaultSort, cursor: _, total: __, ...filters } = query
    const { list, status } = query
    const isHot = [list, status].every(values => !values || values.length === 1) && list?.[0] !== 'none'
    const statements = prepared.get(Object.keys(filters).join())
    if (offset > 0 || sort !== defaultSort || !isHot || !statements) return undefined
    return statements[after ? 1 : 0].execute({
      user: userId,
      limit,
      list: list?.[0],
      status: status?.[0],
      after_0: after?.[0],
      after_1: after?.[1],
    })
  }
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
