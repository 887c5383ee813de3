import { type SQL, sql } from 'drizzle-orm'
import { PgDialect } from 'drizzle-orm/pg-core'
import { byShape, statement } from '../../db/client.ts'
import type { Driver } from '../../db/driver.ts'
import { tasks } from '../../db/schema.ts'
import { parseInstant } from '../../instant.ts'
import { type Cursors, wrongCursor, wrongParameter } from './cursor.ts'
import { type ListQuery, type SortKey, type Task, taskStatuses } from './model.ts'
import { comma, inPassing, toTask, value } from './rows.ts'
import { searchPatterns, wordsSeparator } from './words.ts'

/**
 * Lists. A request is turned into a shape (what is asked) and values (with what); each shape is one statement
 * (docs/decisions/0006-lists.md).
 */

const user = value('user', 'uuid')
const limit = value('limit', 'int')
const offset = value('offset', 'int')

/** The date to sort and compare by. Never null, so that a cursor is a plain comparison: no date is after all dates. */
const dueKey = sql`coalesce(t.due_at, 'infinity')`

/** One condition a filter. */
const conditions = {
  status: sql`t.status = ${value('status', 'text')}`,
  // Not `= any (…)`, from which PostgreSQL before 17 takes no order; and word for word what `tasks_open` says.
  open: sql`t.status <> 'completed'`,
  statuses: sql`t.status = any (${value('statuses', 'text[]')})`,
  priority: sql`t.priority = ${value('priority', 'smallint')}`,
  tag: inPassing(sql`t.tags && ${value('tag', 'text[]')}`),
  q: inPassing(
    sql`(t.title_words || ${sql.raw(`'${wordsSeparator}'`)} || t.description_words) like all (${value('q', 'text[]')})`,
  ),
  due_before: sql`${dueKey} < ${value('due_before', 'timestamptz')}`,
  due_after: sql`${dueKey} > ${value('due_after', 'timestamptz')} and ${dueKey} < 'infinity'`,
  created_before: sql`t.created_at < ${value('created_before', 'timestamptz')}`,
  created_after: sql`t.created_at > ${value('created_after', 'timestamptz')}`,
  updated_after: sql`t.updated_at > ${value('updated_after', 'timestamptz')}`,
  overdue: sql`t.status <> 'completed' and t.due_at < now()`,
} satisfies Record<string, SQL>

type Filter = keyof typeof conditions

/** What can be sorted by: never null, and compared the same way on every database. */
const orders: Record<SortKey | 'id', { by: SQL; type: string; of: (task: Task) => string | number }> = {
  created_at: { by: sql`t.created_at`, type: 'timestamptz', of: task => task.created_at },
  updated_at: { by: sql`t.updated_at`, type: 'timestamptz', of: task => task.updated_at },
  due_at: { by: dueKey, type: 'timestamptz', of: task => task.due_at ?? 'infinity' },
  priority: { by: sql`t.priority`, type: 'smallint', of: task => task.priority },
  title: { by: sql`t.title collate "C"`, type: 'text', of: task => task.title },
  // Its three values come in one order everywhere, so it needs no collation, with which its index would not fit.
  status: { by: sql`t.status`, type: 'text', of: task => task.status },
  position: { by: sql`t.position`, type: 'text', of: task => task.position },
  id: { by: sql`t.id`, type: 'uuid', of: task => task.id },
}

interface Sort {
  key: SortKey | 'id'
  down: boolean
}

/** What a list asks for, without the values. */
export interface Shape {
  filters: Filter[]
  sort: Sort[]
  /** How the page begins. */
  from: 'start' | 'offset' | 'cursor'
}

const all = (parts: SQL[]) => sql.join(parts, sql.raw(' and '))

const whose = sql`from ${tasks} t where t.user_id = ${user} and t.deleted_at is null`
const filtered = (filters: Filter[]) => all([whose, ...filters.map(filter => conditions[filter])])

/** The statement of a page. */
export function pageQuery(shape: Shape): SQL {
  return sql`select t.json ${inOrder(shape, filtered(shape.filters))} ${cut(shape)}`
}

/** How many of the rows a page has. */
const cut = ({ from }: Shape) =>
  from === 'offset' ? sql`limit ${limit} offset ${offset}` : sql`limit ${limit}`

/** The rows behind the cursor, in the order of the list. */
const inOrder = (shape: Shape, rows: SQL) =>
  sql`${shape.from === 'cursor' ? all([rows, behind(shape.sort)]) : rows} order by ${keysOf(shape)}`

const keysOf = ({ sort }: Shape) =>
  sql.join(
    sort.map(({ key, down }) => sql`${orders[key].by} ${sql.raw(down ? 'desc' : 'asc')}`),
    comma,
  )

/** How many tasks a list has in all. */
const countQuery = ({ filters }: Shape): SQL => sql`select count(*) ${filtered(filters)}`

/**
 * The rows behind the cursor. In one direction it is a comparison of rows, which is a range of an index. Otherwise a
 * bound on the first key, and a ladder: beyond in one key while equal in those before it.
 */
function behind(sort: Sort[]): SQL {
  const keys = sort.map(({ key, down }, i) => {
    const { by, type } = orders[key]
    return { by, at: value(`after_${i}`, type), beyond: sql.raw(down ? '<' : '>') }
  })
  const [first] = keys
  if (sort.every(({ down }) => down === sort[0]!.down)) {
    const list = (part: 'by' | 'at') =>
      sql.join(
        keys.map(key => key[part]),
        comma,
      )
    return sql`(${list('by')}) ${first!.beyond} (${list('at')})`
  }
  const steps = keys.map(({ by, at, beyond }, i) =>
    all([...keys.slice(0, i).map(key => sql`${key.by} = ${key.at}`), sql`${by} ${beyond} ${at}`]),
  )
  return sql`${first!.by} ${first!.beyond}= ${first!.at} and (${sql.join(steps, sql.raw(' or '))})`
}

/** One page of a list; of tasks that can be sent as they are, if not said otherwise. */
export interface Page<Item = string> {
  items: Item[]
  /** Where the next page begins; `undefined` on the last one. */
  next: string | undefined
  /** Only when it was asked for. */
  total?: number | undefined
}

export function createLists(driver: Driver, cursors: Cursors) {
  const pageOf = byShape((shape: Shape) => statement<[json: string]>(driver, pageQuery(shape)))
  const countOf = byShape((shape: Shape) => statement<[count: number]>(driver, countQuery(shape)))

  /**
   * A page of the person's live tasks. Throws `validation_failed` for a cursor that is not from this list, and for a
   * cursor with an offset.
   */
  return async function list(userId: string, query: ListQuery): Promise<Page> {
    const { limit = 50, offset = 0, cursor } = query
    const { shape, values } = shapeOf(query)
    const sortText = nameOf(shape.sort)
    if (cursor !== undefined) {
      if (offset > 0) throw wrongParameter('offset', 'not_combinable', 'Use either offset or cursor')
      Object.assign(values, openCursor(userId, cursor, sortText, shape.sort))
    }
    // One more than asked for: whether there is a next page.
    const page = { ...values, user: userId, limit: limit + 1, offset }
    const [rows, counted] = await Promise.all([
      pageOf(shape, `${shape.filters}|${sortText}|${shape.from}`)(page),
      query.total ? countOf(shape, `${shape.filters}`)({ ...values, user: userId }) : undefined,
    ])
    const items = rows.slice(0, limit).map(([json]) => json)
    return {
      items,
      next: rows.length > limit ? sealCursor(userId, sortText, shape.sort, toTask(items.at(-1)!)) : undefined,
      total: counted?.[0]?.[0],
    }
  }

  /** A cursor holds the order that it belongs to, and the last task's values in it. */
  function sealCursor(userId: string, sortText: string, sort: Sort[], last: Task): string {
    const content = [sortText, ...sort.map(({ key }) => orders[key].of(last))]
    return cursors.seal('list', userId, JSON.stringify(content))
  }

  function openCursor(userId: string, cursor: string, sortText: string, sort: Sort[]) {
    const content = cursors.open('list', userId, cursor)
    if (content === undefined) throw wrongCursor('cursor')
    const [its, ...at] = JSON.parse(content) as [string, ...(string | number)[]]
    if (its !== sortText || at.length !== sort.length) throw wrongCursor('cursor')
    return Object.fromEntries(at.map((value, i) => [`after_${i}`, value]))
  }
}

/** What a query asks for, and with which values. */
export function shapeOf(query: ListQuery): { shape: Shape; values: Record<string, unknown> } {
  const { filters, values } = filtersOf(query)
  const from = query.cursor !== undefined ? 'cursor' : query.offset ? 'offset' : 'start'
  return { shape: { filters, sort: parseSort(query.sort ?? '-created_at'), from }, values }
}

const nameOf = (sort: Sort[]) => sort.map(({ key, down }) => (down ? `-${key}` : key)).join()

/** `-priority,due_at` as its keys, with `id` behind them, which goes the way of the last: so no two tasks are equal. */
function parseSort(text: string): Sort[] {
  const sort = text.split(',').map(part => ({
    key: part.replace('-', '') as Sort['key'],
    down: part.startsWith('-'),
  }))
  // A key that comes again decides nothing more.
  const distinct = sort.filter(({ key }, i) => sort.findIndex(other => other.key === key) === i)
  return [...distinct, { key: 'id', down: sort.at(-1)!.down }]
}

/** The filters that a query asks for, in a fixed order, and their values. */
function filtersOf(query: ListQuery) {
  const filters: Shape['filters'] = []
  const values: Record<string, unknown> = {}
  const add = (filter: Filter, value?: unknown) => {
    filters.push(filter)
    if (value !== undefined) values[filter] = value
  }

  const statuses = new Set(query.status)
  const isOpen = statuses.size === 2 && !statuses.has('completed')
  if (statuses.size === 1) add('status', [...statuses][0])
  else if (isOpen) add('open')
  else if (statuses.size > 0 && statuses.size < taskStatuses.length) add('statuses', [...statuses])

  if (query.priority !== undefined) add('priority', query.priority)
  if (query.tag !== undefined) add('tag', query.tag)
  // An empty search field is no search.
  if (query.q?.trim()) add('q', searchPatterns(query.q))
  for (const name of [
    'due_before',
    'due_after',
    'created_before',
    'created_after',
    'updated_after',
  ] as const) {
    const moment = query[name]
    if (moment !== undefined) add(name, parseInstant(moment))
  }
  if (query.overdue) add('overdue')
  return { filters, values }
}

/** The text of a statement, for looking at its plan. */
export const textOf = (query: SQL) => new PgDialect().sqlToQuery(query)
