import { and, eq, lt, ne, type SQL, sql } from 'drizzle-orm'
import type { PgColumn } from 'drizzle-orm/pg-core'
import { type Db, parameter, prepareSql } from '../../db/drizzle.ts'
import {
  afterCursor,
  countRows,
  type OrderKey,
  orderKeys,
  type Page,
  type PageRow,
  page,
  pageSizeDefault,
  readPage,
} from '../../db/page.ts'
import { typeOf } from '../../db/tables.ts'
import { createVersionReader } from '../../db/versions.ts'
import type { Cursors } from '../../lib/cursor.ts'
import type { UserId } from '../../lib/user-id.ts'
import { fieldsWith, filters } from './fields.ts'
import type { ListQuery, TrashQuery } from './model.ts'
import { searchParts, wordsSeparator } from './search.ts'
import { columnOf, isLive, isTrashed, tasks } from './table.ts'

/**
 * Pages of tasks. The default order is read from the index `tasks_created`, or `tasks_list` for those of one list; for any
 * other order all tasks of the user are read and sorted. Other filters are tested on the rows that are read
 * (docs/decisions/0006-lists.md).
 */

const defaultSort = '-created_at'

/** What a cursor is bound to, the order and the filters of its list: with others it would skip or repeat tasks. */
function cursorKind(query: ListQuery): string {
  const { sort = defaultSort, q = '', overdue = false } = query
  const wanted: unknown[] = []
  for (const { name } of filters) {
    const value = query[name as keyof ListQuery]
    if (value !== undefined) wanted.push(name, value)
  }
  return JSON.stringify(['list', sort, q.trim(), overdue, wanted])
}

export function createPages(db: Db, cursors: Cursors) {
  const hotPage = prepareHotPages(db)
  const readVersions = createVersionReader(db)

  /**
   * A page of the user's live tasks. Throws `validation_failed` for a cursor that is not from this list, and for a
   * cursor with an offset.
   */
  async function list(userId: UserId, query: ListQuery): Promise<Page> {
    const after = readCursor(userId, query)
    const page = await readPage(
      hotPage(userId, query, after) ?? db.execute<PageRow>(pageFor(userId, query, after)),
      last => cursors.sign(cursorKind(query), userId, last),
      query.total ? countRows(db, tasks, whereClause(userId, query), userId) : undefined,
    )
    return query.overdue ? { ...page, version: undefined } : page
  }

  /** The `version` that such a page has now, without reading it. Throws as `list` does. */
  async function listVersion(userId: UserId, query: ListQuery): Promise<number | undefined> {
    readCursor(userId, query)
    return query.overdue ? undefined : (await readVersions(userId))?.lastVersion
  }

  /** What the last task of the page before is sorted by. */
  function readCursor(userId: UserId, query: ListQuery): unknown[] | undefined {
    if (query.cursor === undefined) return undefined
    const content = cursors.read(cursorKind(query), userId, query)
    return content && JSON.parse(content)
  }

  /** A page of the user's trash, what was deleted last first. Throws `validation_failed` for a cursor of another list. */
  async function trash(userId: UserId, query: TrashQuery): Promise<Page> {
    const cursor = cursors.read('trash', userId, query)
    const after = afterCursor(trashOrder, cursor && JSON.parse(cursor))
    const statement = page({
      from: tasks,
      where: and(eq(tasks.userId, userId), isTrashed, after)!,
      order: trashOrder,
      item: trashed,
      pageSize: sql`${query.limit ?? pageSizeDefault}::int`,
    })
    return readPage(db.execute<PageRow>(statement), last => cursors.sign('trash', userId, last))
  }

  return { list, listVersion, trash }
}

const trashOrder = orderKeys([tasks.deletedAt, tasks.id], { isDescending: true })

/** A task as JSON, with the moment of its deletion. */
const deletedAt = sql`to_char(${tasks.deletedAt} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`
const trashed = sql`left(${tasks.json}, -1) || ',"deleted_at":"' || ${deletedAt} || '"}'`

/** A page as a statement with its values, so that PostgreSQL plans it for them. */
function pageFor(userId: UserId, query: ListQuery, after: unknown[] | undefined): SQL {
  const { sort = defaultSort, limit = pageSizeDefault, offset = 0 } = query
  const order = parseSort(sort)
  return page({
    from: tasks,
    where: and(whereClause(userId, query), afterCursor(order, after))!,
    order,
    pageSize: sql`${limit}::int`,
    offset,
    lastVersionOf: sql`${userId}::uuid`,
  })
}

/** Filters of hot pages, each with one value. */
const hotFilters = { list: tasks.listId, status: tasks.status }
type HotFilter = keyof typeof hotFilters

/**
 * The most frequent queries, each prepared at its first use: the default order, of everything, one list or one status, from
 * the start or from a cursor. Returns `undefined` for any other query.
 */
function prepareHotPages(db: Db) {
  const order = parseSort(defaultSort)
  /**
   * A value that the planner does not see. A custom plan then costs as much as the generic one, so PostgreSQL keeps the
   * generic one. It estimates that `limit` reads a tenth of the rows, whatever the number, and for that an index in the
   * order of the list is always best. The user is not hidden: a distributed PostgreSQL finds the shard by it.
   */
  const hidden = (name: string, type: string) => sql`(select ${parameter(name, type)})`

  const prepare = (filters: HotFilter[], hasCursor: boolean) => {
    const after = hasCursor ? order.map(({ type }, i) => hidden(`after_${i}`, type)) : undefined
    const where = and(
      eq(tasks.userId, parameter('user', 'uuid')),
      isLive,
      ...filters.map(name => eq(hotFilters[name], hidden(name, typeOf(hotFilters[name])))),
      afterCursor(order, after),
    )!
    const statement = page({
      from: tasks,
      where,
      order,
      pageSize: parameter('limit', 'int'),
      limit: sql`${hidden('limit', 'int')} + 1`,
      lastVersionOf: parameter('user', 'uuid'),
    })
    return prepareSql<PageRow>(db, statement)
  }
  const prepared = new Map<string, ReturnType<typeof prepare>>()

  return (userId: UserId, query: ListQuery, after: unknown[] | undefined) => {
    const {
      limit = pageSizeDefault,
      offset = 0,
      sort = defaultSort,
      cursor: _,
      total: __,
      ...filters
    } = query
    const { list, status } = query
    const names = Object.keys(filters)
    const isHot =
      names.length === 0 ||
      (names.length === 1 && (status?.length === 1 || (list?.length === 1 && list[0] !== 'none')))
    if (offset > 0 || sort !== defaultSort || !isHot) return undefined
    const statement = prepared.getOrInsertComputed(`${names} ${after !== undefined}`, () =>
      prepare(names as HotFilter[], after !== undefined),
    )
    return statement.execute({
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
    isLive,
    ...filters.map(({ name, field, where }) => {
      const wanted = query[name as keyof ListQuery]
      return wanted === undefined ? undefined : where(columnOf(field), wanted as never)
    }),
    // An empty search field is no search.
    q?.trim() ? hasParts(searchParts(q)) : undefined,
    overdue ? and(ne(tasks.status, 'completed'), lt(tasks.dueAt, sql`now()`)) : undefined,
  )!
}

/**
 * Each part is in the title or in the description. By `strpos`, because LIKE takes long where a phrase is nearly there;
 * `offset 0` keeps PostgreSQL from reading the words, which may lie in another table, once for each part.
 */
function hasParts(parts: string[]): SQL {
  if (parts.length === 0) return sql`false`
  const words = sql`${tasks.titleWords} || ${sql.raw(`'${wordsSeparator}'`)} || ${tasks.descriptionWords}`
  const conditions = and(...parts.map(part => sql`strpos(words, ${part}) > 0`))
  return sql`exists (select from (select ${words} as words offset 0) task where ${conditions})`
}

/**
 * The keys of `-priority,due_at`, followed by `id` in the direction of the last one: so no two tasks are equal. A name that
 * comes again decides nothing, and would make cursors long.
 */
function parseSort(text: string): OrderKey[] {
  const parts = text.split(',')
  const keys = new Map<string, OrderKey>()
  for (const part of parts) {
    const name = part.replace('-', '')
    if (!keys.has(name)) keys.set(name, sortKey(name, part.startsWith('-')))
  }
  return [...keys.values(), sortKey('id', parts.at(-1)!.startsWith('-'))]
}

const sortBy = new Map<string, (column: PgColumn) => SQL>(
  fieldsWith('sortBy').map(([name, field]) => [name, field.sortBy]),
)

function sortKey(name: string, isDescending: boolean): OrderKey {
  const column = columnOf(name)
  return { isDescending, by: sortBy.get(name)?.(column) ?? sql`${column}`, type: typeOf(column) }
}
